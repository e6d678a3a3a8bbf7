"""What trackers and data are called elsewhere than on this machine: by their repository, or by the last name of their folder."""

import re
from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id


# A folder of the Hub's cache is named after its repository.
_CACHED = re.compile(r"(?:models|datasets)--(.+)/snapshots/([0-9a-f]{40})/?$")


def repository_of(place: str | Path) -> tuple[str, str | None] | None:
    """
    Name the repository on the Hub that a place is.

    Args:
        place (`str` or `Path`): repository, which may end in `@revision`, or folder, which may be one of the Hub's cache.

    Returns:
        `tuple` of the repository and, where the place tells it, the revision; `None` for another folder.
    """
    text = str(place)
    if cached := _CACHED.search(text.replace("\\", "/")):
        return cached[1].replace("--", "/"), cached[2]
    name, _, revision = text.partition("@")
    if not name or Path(text).exists():
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name, revision or None


def public_name(place: str | Path) -> str:
    """
    Name a place without the path that leads to it on this machine.

    Args:
        place (`str` or `Path`): repository or folder.

    Returns:
        `str`: the repository, or the last name of the folder.
    """
    repository = repository_of(place)
    return repository[0] if repository else re.split(r"[/\\]", str(place).rstrip("/\\"))[-1]


__all__ = ["public_name", "repository_of"]
