"""Pushing trackers to the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from transformers import AutoConfig, AutoModel
from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME, logging
from yaml import YAMLError

from ..models.configuration_tracker import TrackerConfig
from ..models.image_processing_tracker import TrackerImageProcessor
from .card import TrackerCard, write_card
from .contents import check_contents
from .errors import reaching
from .remote_code import is_ours, travelling_code


if TYPE_CHECKING:
    from ..models.tracker import PreTrainedTracker


logger = logging.get_logger(__name__)

CARD = "README.md"
STUDENT = "student"
"""Folder of the tracker in what `ct-hf compress` leaves behind."""

_BESIDE = ("summary.json", "results/**/*.json", "results/**/*.txt")
"""What is published of the other files there. Pictures that may be shared are beside the card; others, and pages, may show footage."""
_PASSED_OVER = re.compile(r"[._]|checkpoint-\d+$")
"""Files and folders of the run, as transformers' Trainer leaves them out."""
_WEIGHTS = re.compile(
    r"model(?:\.(?P<variant>[^./]+?))??(?:-\d+-of-\d+)?\.safetensors"
    r"|model\.safetensors\.index(?:\.(?P<index_variant>[^./]+))?\.json"
)
"""Files of weights, of the plain ones or of a variant such as `fp16`, as transformers names them."""
_OWN_NAMES = (re.compile(r"^# (\S+/\S+)$", re.MULTILINE), re.compile(r'\.from_pretrained\("([^"]+)"\)\.start\('))
"""What a card calls the tracker: in its title, and where it starts it from."""
_UNSAID = "Nobody has said how well this tracker works."
"""What a card says that nobody wrote."""


def push_folder(
    folder: str | Path,
    repository: str,
    *,
    private: bool | None = None,
    message: str = "Upload tracker",
    revision: str | None = None,
    api: HfApi | None = None,
    **commit: Any,
) -> CommitInfo:
    """
    Push a saved tracker in one commit: weights, configuration, image processor, card, and the code with which it loads where
    ct_hf is not installed.

    Until the commit, nothing of it can be seen; a push that was interrupted is made again, and large files that arrived are
    not sent twice. The card goes with the name of the repository in place of its own; a tracker without a card leaves the one
    that is there, or gets one that claims nothing.

    Args:
        folder (`str` or `Path`): folder of a tracker, or what `ct-hf compress` left behind: then the figures beside the
            student go with it.
        repository (`str`): Hub repository, `user/tracker`, made if it is not there; `tracker` alone is the user's own.
        private (`bool`, *optional*): whether only its owner may see it, as by default. A repository that is public is then
            refused; one that is private stays so in any case.
        message (`str`, *optional*, defaults to `"Upload tracker"`): message of the commit.
        revision (`str`, *optional*): branch to push to, made if it is not there; the main one by default.
        api (`HfApi`, *optional*): client to push with; by default one that uses the saved token.
        commit: further arguments of `HfApi.create_commit`, such as `create_pr`.

    Returns:
        `CommitInfo`: the commit, with `repo_url`; that of an earlier push if nothing has changed.

    Raises:
        ValueError: the folder holds no tracker, or a file that must not be published, see [`check_contents`], or the
            repository is public and `private` is set. Nothing was pushed.
        ConnectionError: the Hub does not answer as it should. The repository is at its last whole commit.
        PermissionError: the token is missing, or has no right to write there.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ValueError(
            f"`repository` must be a Hub repository such as 'user/tracker', got {repository!r}."
        ) from error
    private, api = private is not False, api or HfApi()
    if "/" not in repository:
        with reaching(repository):
            repository = f"{api.whoami()['name']}/{repository}"
    files = tracker_files(folder, repository)
    with reaching(repository):
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        there = api.model_info(repository, revision=revision)
    if private and there.private is False:
        raise ValueError(
            f"{repository} is public, so that what is pushed would be too. Push with `private=False` (`--public`) if that is "
            "meant, or make it private in its settings."
        )
    if there.private and not private:
        logger.warning(f"{repository} is private and stays so. Its settings on the Hub change that.")
    names = [file.rfilename for file in there.siblings or ()]
    if CARD in names and not (_home(Path(folder)) / CARD).is_file():
        with reaching(repository):
            card = Path(api.hf_hub_download(repository, CARD, revision=revision)).read_text(encoding="utf-8")
        if _UNSAID not in card:  # somebody wrote it, and it says more than the plain one
            del files[CARD]
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    operations += [CommitOperationDelete(name) for name in names if _is_replaced(name, files)]
    with reaching(repository):
        return api.create_commit(repository, operations, commit_message=message, revision=revision, **commit)


def push_model(
    model: PreTrainedTracker,
    repo_id: str,
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_description: str | None = None,
    max_shard_size: int | str = "50GB",
    variant: str | None = None,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> CommitInfo:
    """
    Push a tracker that is in memory, as `model.push_to_hub` does; see [`push_folder`].

    Args:
        model ([`~models.PreTrainedTracker`]): tracker to push.
        repo_id (`str`): Hub repository, `user/tracker`.
        commit_message (`str`, *optional*): message of the commit; `"Upload tracker"` by default.
        private (`bool`, *optional*): whether only its owner may see it; `True` by default.
        token (`str`, *optional*): access token; the saved one by default.
        revision (`str`, *optional*): branch to push to; the main one by default.
        create_pr (`bool`, *optional*, defaults to `False`): whether to propose the commit only.
        commit_description (`str`, *optional*): what the commit says beyond its message.
        max_shard_size (`int` or `str`, *optional*, defaults to `"50GB"`): largest size of a file of weights.
        variant (`str`, *optional*): part of the names of the files of weights, such as `"fp16"`; the weights of the
            repository that are of another variant stay.
        state_dict (`dict[str, torch.Tensor]`, *optional*): weights to push in place of the tracker's own.

    Returns:
        `CommitInfo`: the commit.

    Raises:
        ValueError, ConnectionError, PermissionError: see [`push_folder`].
    """
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder, state_dict=state_dict, max_shard_size=max_shard_size, variant=variant)
        return push_folder(
            folder,
            repo_id,
            private=private,
            message=commit_message or "Upload tracker",
            revision=revision,
            api=HfApi(token=token),
            create_pr=create_pr,
            commit_description=commit_description,
        )


def tracker_files(folder: str | Path, repository: str) -> dict[str, bytes | Path]:
    """
    Gather what is published of a folder.

    Args:
        folder (`str` or `Path`): see [`push_folder`].
        repository (`str`): Hub repository of which the card shall speak.

    Returns:
        `dict[str, bytes | Path]`: content of each file, or where it is, by its name in the repository.

    Raises:
        ValueError: the folder holds no tracker, or one whose weights are missing, or a file that must not be published.
    """
    folder = Path(folder)
    home = _home(folder)
    if not (home / CONFIG_NAME).is_file():
        raise ValueError(
            f"`folder` {folder} holds no {CONFIG_NAME}, neither itself nor in its folder {STUDENT!r}. Give what `ct-hf "
            "compress` or `save_pretrained` wrote."
        )
    try:
        config = AutoConfig.from_pretrained(home)
    except StrictDataclassError as error:
        raise ValueError(f"`folder` {folder} has a configuration that fits no tracker. {error}") from error
    if not isinstance(config, TrackerConfig):
        raise ValueError(f"`folder` {folder} holds a {config.model_type}, which is no tracker.")
    files: dict[str, bytes | Path] = dict(_listed(home, ("**/*",)))
    if home != folder:
        files = {**dict(_listed(folder, _BESIDE)), **files}
    _check_weights(home, files)

    auto_map, code = travelling_code(config)
    if not code:
        logger.warning(
            f"{type(config).__name__} is defined outside ct_hf, so its code is not pushed: whoever loads the tracker must import "
            f"{type(config).__module__} first."
        )
    files[CONFIG_NAME] = _with_auto_map(json.loads((home / CONFIG_NAME).read_text(encoding="utf-8")), auto_map)
    processor = home / IMAGE_PROCESSOR_NAME
    settings = processor.read_text(encoding="utf-8") if processor.is_file() else None
    settings = settings or TrackerImageProcessor.from_config(config).to_json_string()
    files[IMAGE_PROCESSOR_NAME] = _with_auto_map(json.loads(settings), auto_map)
    files |= {file.name: file.read_bytes() for file in code}

    check_contents(files)
    if CARD not in files:
        with TemporaryDirectory() as aside, torch.device("meta"):
            files[CARD] = write_plain_card(aside, AutoModel.from_config(config), repository).read_bytes()
    files[CARD] = _speaking_of(repository, files[CARD])
    return files


def write_plain_card(directory: str | Path, model: PreTrainedTracker, name: str, **fields: Any) -> Path:
    """
    Write a card that claims nothing beyond what is known: the tracker itself, and what is given.

    Args:
        directory (`str` or `Path`): folder to write it to.
        model ([`~models.PreTrainedTracker`]): the tracker.
        name (`str`): its Hub repository.
        fields: further fields of [`TrackerCard`], where they are known.

    Returns:
        `Path`: the card.
    """
    plain = {
        "name": name,
        "place": name,
        "training": {"How it was trained": "not recorded"},
        "data": "Not recorded.",
        "limits": f"{_UNSAID} Judge it on your own videos before you use it.",
        "licenses": "Not recorded.",
        "license": "unknown",
    }
    return write_card(directory, model, TrackerCard(**{**plain, **fields}))


def _home(folder: Path) -> Path:
    """Where the tracker of a folder is."""
    return folder / STUDENT if (folder / STUDENT / CONFIG_NAME).is_file() else folder


def _listed(folder: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}):
        name = path.relative_to(folder)
        if not any(_PASSED_OVER.match(part) for part in name.parts):
            yield name.as_posix(), path


def _check_weights(home: Path, files: Mapping[str, Any]) -> None:
    """Refuse a tracker without weights, or without a part of them."""
    weights = {name for name in files if _WEIGHTS.fullmatch(name)}
    indices = {name for name in weights if name.endswith(".json")}
    shards = weights - indices
    for name in sorted(indices):
        index = json.loads((home / name).read_text(encoding="utf-8"))
        if missing := sorted({*index["weight_map"].values()} - shards):
            raise ValueError(f"`folder` {home} lacks {missing[0]}, a part of the weights. Save the tracker again.")
    if not shards:
        raise ValueError(
            f"`folder` {home} holds no model.safetensors, and other weights are not pushed. Load the tracker where you trust "
            "its author, and save it again by `save_pretrained`."
        )


def _is_replaced(name: str, files: Mapping[str, Any]) -> bool:
    """Whether a file of an earlier push would be loaded together with those of this one: code, and weights of its variants."""
    if name in files:
        return False
    variants = {found[1] or found[2] for file in files if (found := _WEIGHTS.fullmatch(file))}
    found = _WEIGHTS.fullmatch(name)
    return (found[1] or found[2]) in variants if found else "/" not in name and is_ours(name)


def _with_auto_map(settings: dict[str, Any], auto_map: dict[str, str]) -> bytes:
    settings = {name: value for name, value in settings.items() if name != "auto_map"}
    settings |= {"auto_map": auto_map} if auto_map else {}
    return (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode()


def _speaking_of(repository: str, card: bytes | Path) -> bytes:
    """Put the repository's name where a card has the one in its title, and the place that it starts the tracker from."""
    try:
        text = (card.read_bytes() if isinstance(card, Path) else card).decode("utf-8")
        data = ModelCard(text, ignore_metadata_errors=True).data
    except (UnicodeDecodeError, YAMLError) as error:
        raise ValueError(
            f"{CARD} cannot be read as a card ({' '.join(str(error).split())}). Mend or remove it."
        ) from error
    others = {name for key in ("base_model", "datasets") for name in _listed_names(data.get(key))}
    names = dict.fromkeys(found[1] for pattern in _OWN_NAMES if (found := pattern.search(text)))
    for name in (name for name in names if name not in others):
        text = re.sub(rf"(?<![\w./-]){re.escape(name)}(?![\w/-])", repository, text)
        spoken = ModelCard(text, ignore_metadata_errors=True)
        if spoken.data.model_name == name.rpartition("/")[2]:
            spoken.data.model_name = repository.rpartition("/")[2]
            text = str(spoken)
    return text.encode()


def _listed_names(value: str | list[str] | None) -> list[str]:
    """Names in a field of a card's metadata, which may hold one, several or none."""
    return [value] if isinstance(value, str) else value or []


__all__ = ["push_folder", "push_model", "tracker_files", "write_plain_card"]
