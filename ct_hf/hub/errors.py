"""What a failure on the way to the Hub means for a repository."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import LocalTokenNotFoundError
from huggingface_hub.utils import httpx


@contextmanager
def reaching(repository: str) -> Iterator[None]:
    """
    Push within it: whatever the client raises becomes an error that says what to do.

    Args:
        repository (`str`): Hub repository.

    Raises:
        PermissionError: the token is missing or wrong, or has no right to write there.
        ConnectionError: anything else. The repository is at its last whole commit.
    """
    try:
        yield
    # A large file that could not be sent is a RuntimeError to the client, and one that is refused a ValueError.
    except (OSError, httpx.HTTPError, RuntimeError, ValueError) as error:
        causes = [error, *filter(None, [error.__cause__])]
        reason = " ".join(" ".join(str(cause).split()) for cause in causes)
        answer = next(filter(None, (getattr(cause, "response", None) for cause in causes)), None)
        refused = answer is not None and answer.status_code in (401, 403)
        if refused or any(isinstance(cause, LocalTokenNotFoundError) for cause in causes):
            raise PermissionError(
                f"{repository} cannot be pushed to: {reason} Sign in by `hf auth login` with a token that may write there."
            ) from error
        raise ConnectionError(
            f"{repository} was not pushed to: {reason} It is at its last whole commit. Push again: what has arrived is not "
            "sent twice."
        ) from error


__all__ = ["reaching"]
