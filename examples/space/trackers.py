"""The trackers of the page: those that it offers, and any that is named on the Hub. No code of a repository is run."""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import httpx, validate_repo_id
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel

import ct_hf  # noqa: F401 - registers the trackers
from ct_hf.models import PreTrainedTracker, TrackerConfig


MAX_WEIGHTS = 2_000_000_000  # bytes to download for a repository that somebody typed
_HERE = Path(__file__).resolve().parent
# In a Space the teacher lies beside the app; in the repository of ct_hf, where it always does.
_DEFAULT = (_HERE / "teacher", _HERE / "../assets/teacher", _HERE / "../../outputs/compress/student")


class TrackerError(ValueError):
    """A tracker that cannot be had, and why, in words for the page."""


def offered_trackers(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """
    Trackers to choose from.

    Args:
        environment (`Mapping[str, str]`, *optional*): its `CT_HF_TRACKERS` names them, folders or Hub repositories with
            commas between; by default the small teacher that ships with ct_hf and, if it is there, what `make demo` made.

    Returns:
        `dict[str, str]`: folder or repository by the name in the page, in order.

    Raises:
        ValueError: there is none.
    """
    named = [name.strip() for name in environment.get("CT_HF_TRACKERS", "").split(",") if name.strip()]
    places = named or [str(folder.resolve()) for folder in _DEFAULT if (folder / "config.json").is_file()]
    if not places:
        raise ValueError(
            "`CT_HF_TRACKERS` is empty and no tracker is at hand. Name folders or Hub repositories in it."
        )
    names = [Path(place).name if Path(place).is_dir() else place for place in places]
    return {name if names.count(name) == 1 else place: place for name, place in zip(names, places, strict=True)}


@lru_cache(maxsize=3)
def load_tracker(name: str) -> PreTrainedTracker:
    """
    Load a tracker, in evaluation mode on the processor; the last three stay in memory.

    Args:
        name (`str`): one of [`offered_trackers`], else a Hub repository, which is read without the token of this machine.

    Returns:
        [`~ct_hf.models.PreTrainedTracker`].

    Raises:
        TrackerError: there is no such repository, it cannot be reached, or it holds no tracker that ct_hf knows.
    """
    if not name.strip():
        raise TrackerError("There is no tracker. Choose one, or type a Hub repository such as name/tracker.")
    place = offered_trackers().get(name) or _download(name.strip())
    try:
        model, info = AutoModel.from_pretrained(
            place, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise TrackerError(f"The weights of {name} cannot be loaded: {error}") from error
    if info["missing_keys"]:
        raise TrackerError(
            f"The weights of {name} lack {len(info['missing_keys'])} tensors, so it would track at random."
        )
    return model.eval()


def _download(repository: str) -> str:
    """Fetch configuration and weights of a public repository, nothing else, and say where they are."""
    try:
        validate_repo_id(repository)
        if "/" not in repository:
            raise HFValidationError("no namespace")
    except HFValidationError as error:
        raise TrackerError(f"“{repository}” is no Hub repository; expected a name such as name/tracker.") from error
    try:
        info = HfApi(token=False).model_info(repository, files_metadata=True, timeout=20)
        folder = snapshot_download(repository, token=False, allow_patterns="config.json", revision=info.sha)
        _check(repository, folder, {file.rfilename: file.size or 0 for file in info.siblings or []})
        weights = ["config.json", "*.safetensors", "*.safetensors.index.json"]
        return snapshot_download(repository, token=False, allow_patterns=weights, revision=info.sha)
    except RepositoryNotFoundError as error:
        raise TrackerError(
            f"There is no public repository {repository} on the Hub. Check its name; private and gated ones cannot be typed here."
        ) from error
    except (OSError, httpx.HTTPError) as error:
        raise TrackerError(f"{repository} could not be fetched from the Hub: {error}") from error


def _check(repository: str, folder: str, sizes: Mapping[str, int]) -> None:
    """Refuse what is no tracker of ct_hf's or too large, before its weights are fetched."""
    if "config.json" not in sizes:
        raise TrackerError(f"{repository} has no config.json, so it holds no tracker.")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise TrackerError(
            f"{repository} is no tracker that ct_hf knows, and its own code is not run here."
        ) from error
    if not isinstance(config, TrackerConfig):
        raise TrackerError(f"{repository} holds a model of type {config.model_type}, which is no tracker of ct_hf's.")
    weights = [size for name, size in sizes.items() if name.endswith(".safetensors")]
    if not weights:
        raise TrackerError(f"{repository} holds no weights as safetensors, the only ones that are loaded here.")
    total = sum(weights)
    if total > MAX_WEIGHTS:
        raise TrackerError(
            f"The weights of {repository} are {total / 1e9:.1f} GB, more than the {MAX_WEIGHTS / 1e9:.0f} GB that this page "
            "fetches. Track with it by `ct-hf track`."
        )


__all__ = ["MAX_WEIGHTS", "TrackerError", "load_tracker", "offered_trackers"]
