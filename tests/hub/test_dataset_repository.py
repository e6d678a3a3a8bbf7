import inspect
from types import SimpleNamespace

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, HfApi
from huggingface_hub.utils import filter_repo_objects

from ct_hf.data import convert_dataset
from ct_hf.hub import dataset_repository, push_dataset, write_dataset_card


@pytest.fixture
def root(boats):
    """Drawn sequences, of which one lacks a frame's image."""
    (max(boats.iterdir()) / "3.jpg").write_bytes(b"")
    return boats


@pytest.fixture
def conversion(root, tmp_path):
    return convert_dataset("folder", root, tmp_path / "out", license="cc-by-4.0", stride=100)


class FakeHub:
    """Notes what is asked of the Hub."""

    def __init__(self, files=()):
        self.files, self.calls = list(files), []

    def create_repo(self, repository, **options):
        inspect.signature(HfApi.create_repo).bind(self, repository, **options)
        self.calls.append(("create_repo", repository, options))
        return f"https://huggingface.co/datasets/{repository}"

    def list_repo_files(self, repository, repo_type):
        assert repo_type == "dataset"
        return self.files

    def upload_folder(self, *, folder_path, allow_patterns, ignore_patterns, repo_id, repo_type, commit_message):
        # The real client takes these arguments.
        inspect.signature(HfApi.upload_folder).bind(
            self,
            repo_id=repo_id,
            repo_type=repo_type,
            folder_path=folder_path,
            allow_patterns=allow_patterns,
            ignore_patterns=ignore_patterns,
            commit_message=commit_message,
        )
        names = [path.relative_to(folder_path).as_posix() for path in folder_path.rglob("*") if path.is_file()]
        sent = filter_repo_objects(names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        self.calls.append(("upload_folder", repo_id, repo_type, sorted(sent)))


def test_the_folder_loads_as_it_is(conversion):
    path = write_dataset_card(conversion)
    assert path == conversion.out / "README.md"
    clips = load_dataset(str(conversion.out), split="train", streaming=True)
    assert sum(1 for _ in clips) == conversion.clips
    assert "decode=False" in str(clips.features["frames"])


def test_the_lines_of_the_card_run(conversion):
    text = write_dataset_card(conversion).read_text()
    code = text.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(conversion.out))
    names = {}
    exec(code, names)
    pair = next(iter(names["pairs"]))
    assert pair["search_pixel_values"].shape == (3, 256, 256)


def test_the_card_says_what_is_in_it_and_what_is_not(conversion, root):
    card = DatasetCard.load(write_dataset_card(conversion, "user/boats"))
    assert card.data.license == "cc-by-4.0" and card.data.size_categories == "n<1K"
    assert card.data.task_categories == ["object-detection"] and "visual-object-tracking" in card.data.tags
    (config,) = card.data.to_dict()["configs"]
    assert config["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    text = card.text
    for name, number in (("sequences", 3), ("frames", conversion.frames), ("bytes", f"{conversion.size:,}")):
        assert any(
            line.split("|")[1:3] and [cell.strip() for cell in line.split("|")[1:3]] == [name, str(number)]
            for line in text.splitlines()
        )
    assert "# user/boats" in text and 'load_dataset("user/boats", split="train", streaming=True)' in text
    assert "corrupt_image" in text and ", frame 3: corrupt_image`" in text
    assert "`cc-by-4.0`. The frames" in text
    assert str(root.parent) not in text, "nothing of the machine"


def test_a_card_of_nothing_left_out(root, tmp_path):
    (root / max(path.name for path in root.iterdir()) / "3.jpg").write_bytes(next(root.glob("*/2.jpg")).read_bytes())
    text = write_dataset_card(convert_dataset("folder", root, tmp_path / "whole")).read_text()
    assert "## What was left out\n\nNothing.\n" in text
    assert "nobody said which" in text, "and no licence given"


def test_long_lists_are_cut(conversion, monkeypatch):
    monkeypatch.setattr(dataset_repository, "MOST_NAMED", 0)
    text = write_dataset_card(conversion).read_text()
    assert ", frame 3: corrupt_image" not in text and "and 1 more" in text


def test_pushing_sends_card_manifest_and_shards_to_a_private_repository(conversion):
    (conversion.out / "data" / ".train-00000-of-00003.parquet.partial").write_bytes(b"")
    (conversion.out / "notes.txt").write_text("mine")
    hub = FakeHub(files=[".gitattributes", "README.md", "data/train-00000-of-00003.parquet"])
    assert push_dataset(conversion, "user/boats", hub) == "https://huggingface.co/datasets/user/boats"
    (create, upload) = hub.calls
    assert create == ("create_repo", "user/boats", {"repo_type": "dataset", "private": True, "exist_ok": True})
    shards = [f"data/train-{number:05d}-of-00003.parquet" for number in range(3)]
    assert upload == ("upload_folder", "user/boats", "dataset", ["README.md", "conversion.json", *shards])
    assert "# user/boats" in (conversion.out / "README.md").read_text()


def test_what_may_not_be_mixed_or_shared_is_not_pushed(conversion, root, tmp_path):
    hub = FakeHub(files=["data/train-00000-of-00016.parquet"])
    with pytest.raises(ValueError, match="holds data/train-00000-of-00016.parquet, which is no part of this"):
        push_dataset(conversion, "user/boats", hub)
    assert [call[0] for call in hub.calls] == ["create_repo"]
    unknown = convert_dataset("folder", root, tmp_path / "unknown")
    with pytest.raises(ValueError, match="licence of folder is not said.*--license"):
        push_dataset(unknown, "user/boats", SimpleNamespace())
