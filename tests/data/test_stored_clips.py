import pickle
from types import SimpleNamespace

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ct_hf.data import (
    STORED_FEATURES,
    SequenceClips,
    SequenceError,
    StoredClips,
    convert_dataset,
    read_sequences,
    stored_clips,
)
from ct_hf.data.archives import UrlPath


@pytest.fixture
def root(make_folder):
    for number in range(5):
        folder = make_folder(
            f"walk{number}", count=12 + number, size=(80, 60 + 4 * number), rows=[(10, 12, 20, 16)] * (12 + number)
        )
    return folder.parent


@pytest.fixture
def stored(root, tmp_path):
    return convert_dataset("folder", root, tmp_path / "stored", stride=100).out


def same_clip(one, other):
    assert (one.name, one.number) == (other.name, other.number)
    assert list(one.frame_index) == list(other.frame_index)
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_array_equal(one.visible, other.visible)
    assert one.frame(1, 1).tobytes() == other.frame(1, 1).tobytes()


def test_stored_clips_are_those_of_the_sequences_in_the_same_order(root, stored, take):
    clips = StoredClips(stored)
    own = SequenceClips(read_sequences(root), stride=100, num_shards=clips.num_shards)
    assert clips.num_shards == own.num_shards == 5 and len(own) == 25
    for shards in ([0, 1, 2, 3, 4], [1, 3]):
        orders = zip(clips.order(shards, 7), own.order(shards, 7), strict=False)
        for (epoch, number), (other_epoch, other) in take(orders, 40):
            assert epoch == other_epoch
            same_clip(clips.read(number), own.read(other))


def test_files_are_found_where_they_are(stored, tmp_path):
    assert StoredClips(stored / "data").num_shards == StoredClips(str(stored)).num_shards == 5
    assert StoredClips(stored, split="train").num_shards == 5
    with pytest.raises(SequenceError, match=r"stored' holds no test-\*.parquet"):
        StoredClips(stored, split="test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SequenceError, match=r"empty' holds no \*.parquet.*Give the folder of a conversion"):
        StoredClips(tmp_path / "empty")


def test_they_say_what_they_are_without_the_path_to_them(stored):
    """A folder by its name, a repository on the Hub with the revision that was asked for."""
    clips = StoredClips(stored)
    assert clips.describe() == {"source": "StoredClips", "folder": "stored", "files": 5}
    clips.place = "user/clips@v1.0"
    of_hub = {"repository": "user/clips", "revision": "v1.0"}
    assert clips.describe() == {"source": "StoredClips", **of_hub, "files": 5}


def test_only_the_row_group_asked_for_is_read(root, tmp_path, monkeypatch):
    monkeypatch.setattr("ct_hf.data.conversion.GROUP_ROWS", 1)
    out = convert_dataset("folder", root, tmp_path / "out", stride=100).out
    asked = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, group, **options: asked.append(group) or original(self, group, **options),
    )
    clips = StoredClips(out)
    groups = clips.groups(2)
    assert [len(group) for group in groups] == [1] * len(groups) and len(groups) > 1 and asked == []
    clips.read(groups[1][0])
    clips.read(groups[1][0])
    assert asked == [1]


def test_clips_of_any_file_system(stored, monkeypatch):
    """As on the Hub, whose files fsspec reads too."""
    memory = fsspec.filesystem("memory")
    for path in sorted((stored / "data").iterdir()):
        memory.pipe(f"/clips/data/{path.name}", path.read_bytes())
    url_to_fs = fsspec.url_to_fs
    monkeypatch.setattr(
        fsspec,
        "url_to_fs",
        lambda url, **options: url_to_fs(url.replace("hf://datasets/user/", "memory://"), **options),
    )
    clips, local = StoredClips("user/clips"), StoredClips(stored)
    number = local.groups(3)[0][0]
    same_clip(clips.read(number), local.read(number))


def test_they_go_to_workers(stored):
    clips = StoredClips(stored)
    number = clips.groups(0)[0][0]
    before = clips.read(number)
    same_clip(pickle.loads(pickle.dumps(clips)).read(number), before)


def write(path, **changes):
    row = {
        "name": "odd",
        "clip": 0,
        "frames": [{"bytes": b"no image", "path": None}] * 2,
        "frame_index": [0, 1],
        "boxes": [[1.0, 2.0, 3.0, 4.0]] * 2,
        "visible": [True, True],
        "language": None,
        "source": "odd",
        "license": "unknown",
        **changes,
    }
    pq.write_table(pa.Table.from_pylist([row], schema=STORED_FEATURES.arrow_schema), path)
    return StoredClips(path.parent)


def test_broken_rows_name_themselves(tmp_path):
    clips = write(tmp_path / "odd-0.parquet")
    with pytest.raises(SequenceError, match="odd, frame 1 is not a readable image"):
        clips.read(0).frame(1, 1)
    clips = write(tmp_path / "odd-1.parquet", frames=[{"bytes": None, "path": "a.jpg"}] * 2)
    with pytest.raises(SequenceError, match="odd, frame 0 has no bytes") as info:
        clips.read(clips.groups(1)[0][0]).frame(0, 1)
    assert info.value.cause == "missing_frame"
    clips = write(tmp_path / "odd-2.parquet", visible=[True])
    with pytest.raises(SequenceError, match="odd has 2 frames, 2 frame_index, 2 boxes, 1 visible") as info:
        clips.read(clips.groups(2)[0][0])
    assert info.value.cause == "length_mismatch"


def test_broken_files_name_themselves(stored, tmp_path):
    path = sorted((stored / "data").iterdir())[1]
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(SequenceError, match=f"{path.name} is not a whole Parquet file"):
        StoredClips(stored).groups(1)
    pq.write_table(pa.table({"name": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(SequenceError, match=r"other.parquet lacks the columns boxes, clip, frame_index"):
        StoredClips(tmp_path).groups(0)


def test_folders_may_have_any_name(root, tmp_path):
    convert_dataset("folder", root, tmp_path / "clips[v1]", stride=100)
    assert StoredClips(tmp_path / "clips[v1]").num_shards == 5


def test_few_groups_are_kept_however_many_files_there_are(root, tmp_path):
    convert_dataset("folder", root, tmp_path / "many", stride=1)
    clips = StoredClips(tmp_path / "many")
    stored_clips._read_group.cache_clear()
    for shard in range(clips.num_shards):
        for group in clips.groups(shard):
            clips.read(group[0])
    assert 0 < stored_clips._read_group.cache_info().currsize <= 8


@pytest.mark.parametrize("place", ["videos", "./nowhere", "a/b/c", "/data/clips"])
def test_a_place_that_is_nothing(place):
    with pytest.raises(SequenceError, match="is not a folder, and not called as a repository of the Hub is"):
        StoredClips(place)


@pytest.mark.parametrize("error", [TimeoutError("110"), OSError("503 Server Error")])
def test_a_hub_that_fails_is_not_taken_for_broken_data(stored, monkeypatch, error):
    def fail(*_, **__):
        raise error

    clips = StoredClips(stored)
    (first, *_) = clips.groups(0)
    file = stored_clips._ParquetFile(clips.paths[0])
    monkeypatch.setattr(file, "file", SimpleNamespace(read_row_group=fail))
    with pytest.raises(SequenceError, match="row group 0 cannot be read"):
        file.read_group(0)
    file.place = UrlPath("hf://datasets/user/clips/data/0.parquet")
    with pytest.raises(ConnectionError, match="hf://datasets/user/clips/data/0.parquet cannot be reached"):
        file.read_group(0)
    assert len(first) > 0


def test_a_hub_that_cannot_be_reached(monkeypatch):
    def fail(*_):
        raise OSError("nobody answers")

    files = SimpleNamespace(glob=fail)
    monkeypatch.setattr(stored_clips.fsspec, "url_to_fs", lambda root: (files, root))
    with pytest.raises(ConnectionError, match="hf://datasets/user/clips cannot be reached"):
        StoredClips("user/clips")


def test_a_part_of_a_conversion_is_refused(stored, fails):
    """As an interrupted one, or a copy of it, leaves behind; which file is missing makes no difference."""
    files = sorted((stored / "data").iterdir())
    for file in files:
        aside = file.rename(stored / file.name)
        with fails(
            "missing_frame", f"holds {len(files) - 1} of {len(files)} files train-*-of-", "Run the conversion again"
        ):
            StoredClips(stored / "data")
        aside.rename(file)
    assert StoredClips(stored).num_shards == len(files)


def test_a_damaged_footer_is_a_broken_file_wherever_it_is(stored, fails):
    """Of a file behind a URL it is not taken for a connection that fails."""
    content = bytearray(min((stored / "data").iterdir()).read_bytes())
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[start : start + 40] = b"\xff" * 40
    (stored / "broken.parquet").write_bytes(content)
    fsspec.filesystem("memory").pipe("broken.parquet", bytes(content))
    for path in (f"file://{stored}/broken.parquet", "memory://broken.parquet"):
        with fails("missing_frame", path, "is not a whole Parquet file", "Download the file again"):
            stored_clips._ParquetFile(path)


def test_groups_without_rows_are_none(tmp_path, fails):
    write(tmp_path / "b.parquet")
    table = pq.read_table(tmp_path / "b.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "a.parquet")
    clips = StoredClips(tmp_path)
    assert [len(clips.groups(shard)) for shard in range(2)] == [0, 1]
    assert {clips.read(clips.any_clip(np.random.default_rng(seed))).name for seed in range(8)}
    (tmp_path / "b.parquet").unlink()
    with fails("empty", "hold no clips"):
        next(StoredClips(tmp_path).order([0], 0))
