import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from filelock import FileLock

from ct_hf.data import (
    ConversionError,
    SequenceError,
    conversion,
    convert_dataset,
)


STRIDE = 100  # rows of three frames


@pytest.fixture
def root(make_folder):
    """Ten sequences of twelve frames."""
    for number in range(10):
        folder = make_folder(f"walk{number}", size=(80, 60 + 4 * number))
    return folder.parent


def convert(root, out, **options):
    return convert_dataset("folder", root, out, **{"stride": STRIDE, **options})


def contents(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.glob("data/*"))}


def load(out):
    return load_dataset("parquet", data_files=str(out / "data" / "*.parquet"), split="train", streaming=True)


def test_what_is_stored_is_counted(root, tmp_path):
    done = convert(root, tmp_path / "out")
    assert (done.sequences, done.clips, done.frames, done.left_out) == (10, 40, 120, [])
    assert done.size == sum(map(len, contents(done.out).values()))


def test_images_with_a_box_are_stored(make_folder, tmp_path):
    root = [make_folder(f"image{number}", count=1) for number in range(3)][0].parent
    done = convert(root, tmp_path / "out")
    assert (done.sequences, done.clips, done.frames, done.left_out) == (3, 3, 3, [])


def test_rows_say_where_they_are_from(root, tmp_path):
    convert(root, tmp_path / "out", license="cc-by-4.0")
    row = next(iter(load(tmp_path / "out")))
    assert (row["source"], row["license"], row["language"]) == ("folder", "cc-by-4.0", None)


def test_rows_are_mixed_and_groups_small(root, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "GROUP_ROWS", 2)
    done = convert(root, tmp_path / "out")
    shards = sorted(done.out.glob("data/*.parquet"))
    assert [path.name for path in shards] == [f"train-{n:05d}-of-00008.parquet" for n in range(8)]
    assert load(done.out).num_shards == 8
    names = [row["name"] for row in load(done.out)]
    assert names != sorted(names) and sorted(set(names)) == sorted(f"walk{n}" for n in range(10))
    clips = [pq.read_table(path)["clip"].to_pylist() for path in shards]
    assert all(own != sorted(own) for own in clips if len(own) > 4), "also the rows of one span"
    assert any(own[:4] != [0, 1, 2, 3] for own in clips)
    for path in shards:
        file = pq.ParquetFile(path)
        assert all(file.metadata.row_group(group).num_rows <= 2 for group in range(file.num_row_groups))


def test_large_data_sets_get_more_shards(make_folder, tmp_path, monkeypatch):
    root = [make_folder(f"walk{number}") for number in range(20)][0].parent
    size = sum(file.stat().st_size for file in root.glob("*/*.jpg"))
    for shards, number in ((1, 8), (14, 16), (1000, 20)):
        monkeypatch.setattr(conversion, "SHARD_BYTES", size / shards)
        convert(root, tmp_path / str(shards))
        assert len(contents(tmp_path / str(shards))) == number, "a multiple of 8, but no more than there are spans"


@pytest.mark.parametrize("where", ["walk3/groundtruth.txt", "walk3/00000002.jpg", "walk8/00000012.jpg"])
def test_a_killed_conversion_goes_on(root, tmp_path, where):
    """In planning or in a shard: the process waits for a pipe in place of a file, and is killed there with -9."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    convert(root, whole)
    file = root / where
    kept = file.rename(tmp_path / file.name)
    os.mkfifo(file)
    command = [sys.executable, "-m", "ct_hf.cli", "data", "convert", "folder", root, out, "--stride", str(STRIDE)]
    process = subprocess.Popen(
        list(map(str, command)), cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with file.open("wb"):  # waits until the process reads
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    file.unlink()
    kept.rename(file)
    before = {name: (out / name).stat() for name in contents(out)}
    assert len(before) < 8 and all(contents(out)[name] == contents(whole)[name] for name in before)
    if before:
        (missing, *_) = sorted(contents(whole).keys() - before.keys())
        (out / "data" / f".{Path(missing).name}.partial").write_bytes(b"half a sha")
    convert(root, out)
    assert contents(out) == contents(whole)
    assert (out / "conversion.json").read_text() == (whole / "conversion.json").read_text()
    for name, stat in before.items():
        assert (out / name).stat().st_ino == stat.st_ino, "finished shards are not made again"


def test_a_finished_conversion_reads_no_frame(root, tmp_path):
    done = convert(root, tmp_path / "out")
    for file in root.glob("*/*.jpg"):
        file.write_bytes(b"")
    assert convert(root, tmp_path / "out") == done


def test_other_arguments_are_refused(root, tmp_path):
    convert(root, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(ConversionError, match="begun with `stride`=100, got 50. Use the same"):
        convert(root, tmp_path / "out", stride=50)
    with pytest.raises(ConversionError, match="`license`='unknown', got 'mit'"):
        convert(root, tmp_path / "out", license="mit")
    with pytest.raises(ValueError, match="`stride` must be"):
        convert(root, tmp_path / "out", stride=0)
    with pytest.raises(ValueError, match="`split` of folder must be None"):
        convert(root, tmp_path / "out", split="train")
    assert contents(tmp_path / "out") == before


def test_other_folders_are_refused(root, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ConversionError, match="holds 'thesis.tex' and no conversion.json.*Use an empty folder"):
        convert(root, tmp_path / "mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "conversion.json").write_text("{}")
    with pytest.raises(ConversionError, match="is not the manifest of a conversion"):
        convert(root, tmp_path / "broken")


def test_a_data_set_that_changed_is_refused(root, tmp_path):
    done = convert(root, tmp_path / "out")
    manifest = json.loads((done.out / "conversion.json").read_text())
    ((name, _),) = [(name, spans) for name, spans in manifest["shards"].items() if ["walk4", 0, 12] in spans]
    (done.out / name).unlink()
    (root / "walk4" / "00000012.jpg").unlink()
    rows = (root / "walk4" / "groundtruth.txt").read_text().splitlines()
    (root / "walk4" / "groundtruth.txt").write_text("\n".join(rows[:11]))
    with pytest.raises(ConversionError, match="walk4 has 11 frames, but had 12 when"):
        convert(root, done.out)
    (root / "walk4" / "00000011.jpg").unlink()
    with pytest.raises(SequenceError, match="walk4 has 10 frames but groundtruth.txt has 11 rows"):
        convert(root, done.out)
    (root / "walk4").rename(tmp_path / "walk4")
    with pytest.raises(ConversionError, match="begun with sequence 'walk4', which the data set does not hold now"):
        convert(root, done.out)
    (done.out / name).write_bytes(b"PAR1")
    (tmp_path / "walk4").rename(root / "walk4")
    with pytest.raises(ConversionError, match=f"{name} is not a shard of this conversion"):
        convert(root, done.out)


def test_an_annotation_that_changed_is_refused(root, tmp_path):
    done = convert(root, tmp_path / "out")
    for shard in done.out.glob("data/*"):
        shard.unlink()
    file = root / "walk4" / "groundtruth.txt"
    before = file.read_text()
    file.write_text(before.replace("12", "13"))
    with pytest.raises(ConversionError, match="The annotation of walk4 is not what it was when"):
        convert(root, done.out)
    file.write_text(before)
    assert convert(root, done.out).frames == done.frames


def test_two_at_once_are_refused(root, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        FileLock(tmp_path / "out" / ".lock"),
        pytest.raises(ConversionError, match="Another process converts into"),
    ):
        convert(root, tmp_path / "out")


def test_what_is_broken_is_left_out_counted_and_too_much_an_error(root, tmp_path, caplog):
    (root / "walk1" / "00000003.jpg").write_bytes(b"")
    (root / "walk2" / "groundtruth.txt").unlink()
    (root / "walk3" / "groundtruth.txt").write_text("NaN,NaN,NaN,NaN\n" * 11 + "1,2,3,4")
    done = convert(root, tmp_path / "out")
    assert done.count("sequences") == {"missing_ground_truth": 1, "too_few_visible": 1}
    assert done.count("frames") == {"corrupt_image": 1}
    assert [str(entry) for entry in done.left_out] == [
        "walk2: missing_ground_truth",
        "walk3: too_few_visible",
        "walk1, frame 2: corrupt_image",
    ]
    for entry in ("walk2", "walk3", "walk1, frame 2"):
        assert entry in caplog.text
    assert (done.sequences, done.clips, done.frames, done.all_frames) == (8, 32, 95, 96)
    with pytest.raises(ConversionError, match=r"2 of 10 sequences were left out.*20.00 %, where 1 % are allowed"):
        done.check()
    with pytest.raises(ConversionError, match=r"2 of 10 sequences"):
        done.check(0.19)
    done.check(0.2)
    assert len(contents(done.out)) == 8, "finished shards are kept"
    assert convert(root, done.out) == done, "and remembered"


def test_a_sequence_that_lacks_frames_is_left_out_as_a_whole(root, tmp_path):
    """Its other boxes may belong to other frames."""
    (root / "walk5" / "00000007.jpg").unlink()
    done = convert(root, tmp_path / "out")
    assert [str(entry) for entry in done.left_out] == ["walk5: length_mismatch"] and done.sequences == 9


def test_broken_frames_alone_are_too_much_as_well(root, tmp_path):
    for number in range(2, 5):
        (root / "walk1" / f"0000000{number}.jpg").write_bytes(b"")
    done = convert(root, tmp_path / "out")
    with pytest.raises(ConversionError, match=r"3 of 120 frames were left out \(corrupt_image: 3\), 2.50 %"):
        done.check(0.02)
    done.check(0.025)


def test_withheld_ground_truth_cannot_be_converted(tmp_path):
    root = tmp_path / "got"
    (root / "test" / "a").mkdir(parents=True)
    (root / "test" / "list.txt").write_text("a")
    (root / "test" / "a" / "groundtruth.txt").write_text("1,2,3,4")
    for number in (1, 2):
        (root / "test" / "a" / f"{number:08d}.jpg").touch()
    with pytest.raises(SequenceError, match="None of 1 sequences.*a: its ground truth is withheld") as caught:
        convert_dataset("got10k", root, tmp_path / "out", split="test")
    assert caught.value.cause == "too_few_visible"
    with pytest.raises(SequenceError, match="train/list.txt"):
        convert_dataset("got10k", root, tmp_path / "out")


def test_sequences_that_came_later_are_missed(root, make_folder, tmp_path):
    convert(root, tmp_path / "out")
    make_folder("late")
    with pytest.raises(ConversionError, match="was begun without 1 sequences .* such as 'late'"):
        convert(root, tmp_path / "out")


def test_names_that_cannot_be_kept(root, tmp_path):
    os.rename(os.fsencode(root / "walk3"), os.fsencode(root) + b"/caf\xe9")
    with pytest.raises(ValueError, match="names of 1 sequences are not UTF-8, such as 'caf"):
        convert(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_are_there_twice(root, tmp_path, monkeypatch):
    twice = conversion.read_dataset("folder", root, None, check=False) * 2
    monkeypatch.setattr(conversion, "read_dataset", lambda *_, **__: twice)
    with pytest.raises(ValueError, match="10 sequences are called as others are, such as 'walk0', which 2 are"):
        convert(root, tmp_path / "out")


def test_a_file_is_no_folder_to_write_to(root, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConversionError, match="`out`=.* is a file. Give a folder"):
        convert(root, tmp_path / "out")
