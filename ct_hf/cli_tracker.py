"""The tracker that a command was given, loaded or refused in a sentence."""

from pathlib import Path
from typing import Any


def load_tracker(path: str, argument: str, dtype: str = "auto") -> Any:
    """
    Load a tracker that a command was given.

    Args:
        path (`str`): folder or Hub repository.
        argument (`str`): what the command calls it, such as `--tracker`.
        dtype (`str`, *optional*, defaults to `"auto"`): type of its weights; as they were saved by default.

    Returns:
        `PreTrainedTracker`: in evaluation mode, on the CPU.

    Raises:
        `OSError`: if there is none.
        `ValueError`: if what is there is no tracker.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoModel
    from transformers.utils import CONFIG_NAME

    import ct_hf  # noqa: F401 - registers the trackers

    from .models import PreTrainedTracker

    place = Path(path)
    if place.is_file():
        raise ValueError(
            f"`{argument}` {path} is a file, expected a folder or a Hub repository. An original checkpoint becomes one by `ct-hf convert`."
        )
    if not (place / CONFIG_NAME).is_file() and (place / "student" / CONFIG_NAME).is_file():
        raise ValueError(
            f"`{argument}` {path} holds the results of a compression. Its tracker is {place / 'student'}."
        )
    try:
        model, loading = AutoModel.from_pretrained(path, dtype=dtype, output_loading_info=True)
    except StrictDataclassError as error:
        raise ValueError(f"`{argument}` {path} has a configuration that fits no tracker. {error}") from error
    except OSError as error:
        raise OSError(f"`{argument}` {path} cannot be loaded. {error}") from error
    except ValueError as error:
        raise ValueError(f"`{argument}` {path} cannot be loaded. {error}") from error
    except RuntimeError as error:  # shapes that differ
        raise ValueError(f"`{argument}` {path} has weights that do not fit its config.json. {error}") from error
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(
            f"`{argument}` {path} lacks {len(missing)} tensors that its configuration asks for, such as {missing[0]}. Save the "
            "tracker again, or correct config.json."
        )
    if not isinstance(model, PreTrainedTracker):
        raise ValueError(f"`{argument}` {path} holds a {type(model).__name__}, which is no tracker.")
    return model.eval()


__all__ = ["load_tracker"]
