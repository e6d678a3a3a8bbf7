"""The card that `ct-hf compress` writes: what the run was, in words."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from .compression import InitializationReport, StagePlan, stage_table
from .compression.record import data_lines, training_rows
from .hub.card import UNNAMED, TrackerCard
from .hub.contents import MACHINE_PATH
from .names import public_name, repository_of


LIMITS = (
    "Made to show and to test a compression. Judge it on your own videos before you use it. It follows what its box shows, "
    "whatever or whoever that is, so it is as fit for watching people as for following a ball: what is done with it is its "
    "user's to answer for. It has learnt from one teacher, whose failures it repeats, and from the data above: kinds of "
    "target, camera and light that they lack it follows worse. Nobody has examined where it fails."
)


def describe_run(
    record: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    argv: Sequence[str],
    teacher: str,
    plan: StagePlan,
    report: InitializationReport,
    num_processes: int,
    num_sequences: int,
    judged_on: str,
    photographs: bool,
    pictures: Sequence[Path],
) -> TrackerCard:
    """
    Put a compression into words.

    Args:
        record (`Mapping`): what the student's configuration keeps of it.
        rows (sequence of mappings): results of the teacher, of the student, and of others.
        argv (sequence of `str`): arguments of the command.
        teacher (`str`): folder or repository of the teacher.
        plan ([`~compression.StagePlan`]): how both were cut.
        report ([`~compression.InitializationReport`]): where the student's tensors came from.
        num_processes (`int`): processes that trained.
        num_sequences (`int`): sequences that it was judged on.
        judged_on (`str`): what these were, such as `"rendered sequences"`.
        photographs (`bool`): whether rendered sequences are painted with the user's photographs.
        pictures (sequence of `Path`): pictures to show.

    Returns:
        [`~hub.TrackerCard`]
    """
    license = find_license(teacher)
    notes = ["Folders of the machine that trained it are called by their last names."]
    if "tracking" in (record["best_by"] or ""):
        notes.append(
            "The sequences of the results also chose the step whose weights are kept, so these figures flatter it."
        )
    return TrackerCard(
        name=UNNAMED,
        place=UNNAMED,
        about="The configuration keeps the whole record of the compression, as `model.config.compression`.",
        results=rows,
        evaluated_on=f"{num_sequences} {judged_on}",
        training=training_rows(record),
        command=public_command(argv, num_processes),
        notes="\n\n".join(notes),
        pictures=pictures,
        stages=stage_table(plan, report.layers),
        initialization=str(report),
        data=_data(record, photographs),
        limits=LIMITS,
        licenses=_licenses(license, record, photographs),
        license=license,
    )


def public_command(argv: Sequence[str], num_processes: int = 1) -> str:
    """
    Say how the command was called, without the paths of this machine and without an access token.

    Args:
        argv (sequence of `str`): its arguments.
        num_processes (`int`, *optional*, defaults to 1): processes.

    Returns:
        `str`: a line of a shell.
    """
    words = [
        MACHINE_PATH.sub(lambda found: public_name(found[0]), _public_word(word)) for word in _without_token(argv)
    ]
    start = ["ct-hf", "compress"]
    if num_processes > 1:
        start = ["accelerate", "launch", "--num_processes", str(num_processes), "-m", "ct_hf.cli", "compress"]
    return shlex.join([*start, *words])


def _without_token(argv: Sequence[str]) -> Iterator[str]:
    names, before = ("--hub_token", "--hub-token"), ""
    for word in argv:
        if before not in names and word.split("=")[0] not in names:
            yield word
        before = word


def _public_word(word: str) -> str:
    """An argument; of a path of this machine, or with one in it, the last name."""
    for mark in ("=", ":"):
        start, found, place = word.partition(mark)
        if found and (place.startswith(("/", "~", "\\")) or _is_there(place)):
            return f"{start}{mark}{public_name(place)}"
    local = word.startswith(("/", "~", "\\", ".")) or word[1:3] == ":\\" or _is_there(word)
    return public_name(word) if local else word


def _is_there(word: str) -> bool:
    return "/" in word and Path(word).exists()


def find_license(tracker: str) -> str:
    """
    Read a tracker's licence from its card; its students have the same.

    Args:
        tracker (`str`): folder or repository.

    Returns:
        `str`: identifier of the licence; `"unknown"` where there is no card, or none that says one of the Hub's.
    """
    card = Path(tracker) / "README.md"
    try:
        if repository_of(tracker) and not card.is_file():
            license = ModelCard.load(tracker).data.license
        else:
            license = ModelCard.load(card).data.license if card.is_file() else None
    except (OSError, ValueError):  # there is no card, it cannot be had now, or its head is no YAML
        return "unknown"
    return license if isinstance(license, str) and license != "other" else "unknown"


def _rendered(record: Mapping[str, Any]) -> bool:
    return all(source["source"] == "RenderedClips" for source in record["data"])


def _data(record: Mapping[str, Any], photographs: bool) -> str:
    if _rendered(record):
        painted = "photographs of whoever trained it and from drawn textures" if photographs else "drawn textures"
        return f"Sequences rendered on the fly by `ct_hf.data.ProceduralWorld` from {painted}. No footage."
    return data_lines(record)


def _licenses(license: str, record: Mapping[str, Any], photographs: bool) -> str:
    if license == "unknown":
        weights = (
            "nobody said under which licence the teacher's are, on which these depend. Find out before you share them, and "
            "write it into the head of this card."
        )
    else:
        weights = f"`{license}`, that of the teacher's card, as these began as the teacher's weights."
    if not _rendered(record):
        data = "each data set keeps its own licence, which this card does not know; many are for research alone."
    elif photographs:
        data = "rendered from photographs, whose licences this card does not know."
    else:
        data = "rendered by ct_hf (Apache-2.0); nobody else's pictures are in it. What the teacher was trained on is another matter: see its card."
    return f"- **Weights:** {weights}\n- **Training data:** {data}"


__all__ = ["describe_run", "find_license", "public_command"]
