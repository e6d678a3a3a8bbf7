"""Stored data sets on the Hub: their card, and pushing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData, HfApi

from ..data.stored import MANIFEST, Conversion
from ..evaluation.report import markdown_table
from .card import TAGS
from .contents import check_contents
from .errors import reaching


CARD = "README.md"
MOST_NAMED = 1000
"""So many of what was left out are named in a card, the rest is counted."""

_TEMPLATE = Path(__file__).parent / "templates" / "dataset_card.md"


def write_dataset_card(conversion: Conversion, name: str | None = None) -> Path:
    """
    Write the card of a converted data set, the `README.md` of its folder, with which `load_dataset` finds its split.

    Args:
        conversion ([`~data.Conversion`]): what was converted.
        name (`str`, *optional*): Hub repository of the data set; by default the card speaks of a folder.

    Returns:
        `Path`: the card.
    """
    arguments = conversion.arguments
    causes = [
        (what, cause, f"{count:,}")
        for what in ("sequences", "frames")
        for cause, count in sorted(conversion.count(what).items())
    ]
    metadata = DatasetCardData(
        license=arguments["license"],
        task_categories=["object-detection"],
        tags=[tag for tag in TAGS if tag != "compresstracker"],
        size_categories=_size_category(conversion.clips),
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": conversion.split, "path": f"data/{conversion.split}-*.parquet"}],
            }
        ],
    )
    card = DatasetCard.from_template(
        metadata,
        template_path=str(_TEMPLATE),
        title=name or " ".join(filter(None, (arguments["layout"], arguments["split"]))),
        place=name or "path/to/this/folder",
        layout=arguments["layout"],
        original_split=arguments["split"],
        split=conversion.split,
        stride=arguments["stride"],
        license=arguments["license"],
        counts=markdown_table(
            ("", "Number"),
            [
                ("sequences", f"{conversion.sequences:,}"),
                ("clips (rows)", f"{conversion.clips:,}"),
                ("frames", f"{conversion.frames:,}"),
                ("bytes", f"{conversion.size:,}"),
                ("clips without a pair, left out", f"{conversion.without_pair:,}"),
            ],
            left=1,
        ),
        causes=markdown_table(("Left out", "Cause", "Number"), causes, left=2) if causes else None,
        named=[str(entry) for entry in conversion.left_out[:MOST_NAMED]],
        unnamed=max(0, len(conversion.left_out) - MOST_NAMED),
        manifest=MANIFEST,
    )
    path = conversion.out / CARD
    card.save(path)
    return path


def push_dataset(conversion: Conversion, repository: str, api: Any = None) -> str:
    """
    Push a converted data set and its card to a repository, which is made private if it is new. A push that was
    interrupted goes on when it is called again.

    Args:
        conversion ([`~data.Conversion`]): what was converted.
        repository (`str`): Hub repository, `user/name`.
        api (`huggingface_hub.HfApi`, *optional*): client to push with; by default one that uses the saved token.

    Returns:
        `str`: address of the repository.

    Raises:
        ValueError: the licence is not known, or the repository holds shards of something else, or the card or the manifest
            holds a token or a path of the machine.
        ConnectionError, PermissionError: see [`push_folder`].
    """
    if conversion.arguments["license"] == "unknown":
        raise ValueError(
            f"The licence of {conversion.arguments['layout']} is not said, so that nobody could know whether it may be shared. "
            "Convert with `--license`, in the Hub's spelling, such as cc-by-nc-sa-4.0 or other."
        )
    write_dataset_card(conversion, repository)
    api = api or HfApi()
    own = {path.relative_to(conversion.out).as_posix() for path in conversion.out.glob("data/*.parquet")}
    check_contents({name: conversion.out / name for name in (CARD, MANIFEST)})
    with reaching(repository):
        address = str(api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True))
        there = api.list_repo_files(repository, repo_type="dataset")
    strange = [name for name in there if name.endswith(".parquet") and name not in own]
    if strange:
        raise ValueError(
            f"{repository} holds {strange[0]}, which is no part of this conversion; both would be read as one. Remove it, or "
            "push to another repository."
        )
    with reaching(repository):
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=conversion.out,
            allow_patterns=[CARD, MANIFEST, "data/*.parquet"],
            ignore_patterns=["**/.*"],
            commit_message=f"{conversion.arguments['layout']} as clips",
        )
    return address


def _size_category(rows: int) -> str:
    """Number of rows in the Hub's words."""
    words = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M")
    return words[min(max(len(str(rows)) - 3, 0), len(words) - 1)]


__all__ = ["push_dataset", "write_dataset_card"]
