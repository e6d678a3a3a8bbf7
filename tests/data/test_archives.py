"""Data sets in their archives, here and behind URLs."""

import io
import pickle
import shutil
import zipfile
from contextlib import contextmanager

import fsspec
import numpy as np
import pytest
from PIL import Image

from ct_hf.data import SequenceClips, SequenceError, archives, read_dataset
from ct_hf.data.archives import MemberPath, UrlPath


@contextmanager
def fails(cause, words):
    with pytest.raises(SequenceError, match=words) as caught:
        yield
    assert caught.value.cause == cause


def jpeg(grey, size=(64, 48)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (grey, 255 - grey, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def lasot_files(name="cat-3", count=5):
    files = {f"{name}/img/{n:08d}.jpg": jpeg(10 * n) for n in range(1, count + 1)}
    files |= {f"{name}/{flag}.txt": ",".join("0" * count).encode() for flag in ("full_occlusion", "out_of_view")}
    rows = "".join(f"{10 + n},12,20,16\n" for n in range(count))
    return files | {f"{name}/groundtruth.txt": rows.encode(), f"{name}/nlp.txt": b"a cat"}


def pack(path, files, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture(autouse=True)
def forget():
    """Tests write archives of the same name."""
    archives._opened.cache_clear()


@pytest.fixture
def lasot(tmp_path):
    """The Hub's form: a list and an archive for each category, without the category's folder in it."""
    root = tmp_path / "hub"
    pack(root / "cat.zip", lasot_files("cat-3") | lasot_files("cat-12", 3))
    pack(root / "dog.zip", lasot_files("dog-1"), compression=zipfile.ZIP_DEFLATED)
    (root / "testing_set.txt").write_text("dog-1\ncat-12\ncat-3\n")
    return root


@pytest.fixture
def trackingnet(tmp_path):
    root = tmp_path / "tn"
    for name, count in (("-a_0", 12), ("b_1", 3)):
        pack(root / "TRAIN_1" / "zips" / f"{name}.zip", {f"{n}.jpg": jpeg(n) for n in range(count)})
        (root / "TRAIN_1" / "anno").mkdir(exist_ok=True)
        (root / "TRAIN_1" / "anno" / f"{name}.txt").write_text("".join(f"{n},2,20,16\n" for n in range(count)))
    return root


def same(first, second):
    assert [sequence.name for sequence in first] == [sequence.name for sequence in second]
    for a, b in zip(first, second, strict=True):
        assert a.boxes.tolist() == b.boxes.tolist() and a.visible.tolist() == b.visible.tolist()
        assert a.size == b.size and a.language == b.language
        assert [a.frame_bytes(index) for index in range(len(a))] == [b.frame_bytes(index) for index in range(len(b))]


def test_archives_of_lasot_read_as_their_folders_do(lasot, tmp_path):
    unpacked = tmp_path / "unpacked"
    for category in ("cat", "dog"):
        zipfile.ZipFile(lasot / f"{category}.zip").extractall(unpacked / category)
    shutil.copy(lasot / "testing_set.txt", unpacked)
    same(read_dataset("lasot", lasot), read_dataset("lasot", unpacked))
    (lasot / "testing_set.txt").unlink()
    extension = read_dataset("lasot_ext", lasot)
    assert [sequence.name for sequence in extension] == ["cat-12", "cat-3", "dog-1"]
    assert extension[1].boxes[0].tolist() == [9, 11, 20, 16], "from 0, corrected once"


def test_an_unpacked_category_is_taken_before_its_archive(lasot):
    zipfile.ZipFile(lasot / "dog.zip").extractall(lasot / "dog")
    (lasot / "dog" / "dog-1" / "nlp.txt").write_text("another dog")
    assert [sequence.language for sequence in read_dataset("lasot", lasot)] == ["another dog", "a cat", "a cat"]


def test_archives_of_trackingnet_read_as_their_folders_do(trackingnet, tmp_path):
    unpacked = tmp_path / "unpacked" / "TRAIN_1"
    shutil.copytree(trackingnet / "TRAIN_1" / "anno", unpacked / "anno")
    for name in ("-a_0", "b_1"):
        zipfile.ZipFile(trackingnet / "TRAIN_1" / "zips" / f"{name}.zip").extractall(unpacked / "frames" / name)
    sequences = read_dataset("trackingnet", trackingnet, "train")
    same(sequences, read_dataset("trackingnet", unpacked.parent, "train"))
    assert [file.name for file in sequences[0].files][9:] == ["9.jpg", "10.jpg", "11.jpg"]
    archives._opened.cache_clear()
    (trackingnet / "TRAIN_1" / "zips" / "b_1.zip").unlink()
    with fails("empty", "b_1.zip is not a folder"):
        read_dataset("trackingnet", trackingnet, "train")


def test_archives_behind_a_url_read_as_local_ones_do(lasot, trackingnet):
    memory = fsspec.filesystem("memory")
    memory.put(str(lasot), "/mirror/lasot", recursive=True)
    memory.put(str(trackingnet), "/mirror/tn", recursive=True)
    try:
        same(read_dataset("lasot", "memory://mirror/lasot"), read_dataset("lasot", lasot))
        same(
            read_dataset("trackingnet", "memory://mirror/tn/", "train"),
            read_dataset("trackingnet", trackingnet, "train"),
        )
        with fails("empty", r"holds no training_set.txt.*Found cat.zip, dog.zip, testing_set.txt"):
            read_dataset("lasot", "memory://mirror/lasot", "train")
    finally:
        memory.rm("/mirror", recursive=True)
    same(read_dataset("lasot", f"file://{lasot}"), read_dataset("lasot", lasot))
    with pytest.raises(ValueError, match="is a URL, which only lasot, lasot_ext, trackingnet can be read from"):
        read_dataset("otb100", "memory://mirror/otb")
    with fails("empty", "is not a folder"):
        read_dataset("lasot", "memory://nowhere")


def test_only_the_members_needed_are_fetched(tmp_path, monkeypatch):
    """Of 40 large frames, one is asked for."""
    rng = np.random.default_rng(0)
    noise = {f"{n}.jpg": rng.bytes(2**18) for n in range(40)} | {"40.jpg": jpeg(40)}
    archive = pack(tmp_path / "large.zip", noise)
    read = []

    class Counting(io.FileIO):
        def read(self, size=-1):
            data = super().read(size)
            read.append(len(data))
            return data

    monkeypatch.setattr(UrlPath, "open", lambda self, mode="rb": Counting(archive))
    member = MemberPath("40.jpg", UrlPath("memory://large.zip"))
    assert member.read_bytes() == noise["40.jpg"]
    assert 0 < sum(read) < archive.stat().st_size / 50


def test_sequences_in_archives_go_to_workers(lasot):
    (dog, *_) = sequences = read_dataset("lasot", lasot)
    copy = pickle.loads(pickle.dumps(dog))
    assert copy.frame_bytes(2) == dog.frame_bytes(2)
    clips = SequenceClips(sequences)
    assert {clips.read(number).frame(0, 1).mode for number in range(len(clips))} == {"RGB"} and not clips.left_out


@pytest.mark.parametrize(
    "member", ["/etc/frame.jpg", "../frame.jpg", "cat-3/../../frame.jpg", "C:/x.jpg", "..\\x.jpg"]
)
def test_members_that_lead_out_are_refused(tmp_path, member):
    archive = pack(tmp_path / "cat.zip", lasot_files() | {member: b""})
    with fails("missing_frame", "leads out of the archive"):
        MemberPath("cat-3", archive).listdir()


def test_broken_archives(lasot):
    whole = (lasot / "cat.zip").read_bytes()
    (lasot / "cat.zip").write_bytes(whole[: len(whole) // 2])
    with fails("missing_frame", r"cat.zip is not a whole zip archive.*Download it again"):
        read_dataset("lasot", lasot)
    assert len(read_dataset("lasot", lasot, check=False)) == 3, "left to the stream"
    (lasot / "cat.zip").write_bytes(b"")
    with fails("empty", "cat.zip is an empty file"):
        read_dataset("lasot", lasot)
    pack(lasot / "cat.zip", {})
    with fails("empty", "cat.zip is an archive of nothing"):
        read_dataset("lasot", lasot)
    pack(lasot / "cat.zip", {"cat-3/groundtruth.txt": b"1,2,3,4"})
    with fails("missing_ground_truth", "cat.zip/cat-12/groundtruth.txt does not exist"):
        read_dataset("lasot", lasot)


def test_a_broken_member_costs_only_itself(lasot):
    data = bytearray((lasot / "dog.zip").read_bytes())
    with zipfile.ZipFile(lasot / "dog.zip") as archive:
        offset = archive.getinfo("dog-1/img/00000002.jpg").header_offset
    data[offset + 80 : offset + 90] = bytes(10)
    (lasot / "dog.zip").write_bytes(data)
    dog, *_ = read_dataset("lasot", lasot)
    with fails("corrupt_image", "dog.zip/dog-1/img/00000002.jpg cannot be taken out"):
        dog.frame(1)
    assert dog.frame(2).size == (64, 48)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_broken_member_of_any_compression(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.txt", bytes(range(256)) * 40)
        offset = archive.getinfo("a.txt").header_offset
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[offset + 50 : offset + 90] = b"\xff" * 40
    (tmp_path / "a.zip").write_bytes(data)
    with fails("corrupt_image", "a.zip/a.txt cannot be taken out"):
        MemberPath("a.txt", tmp_path / "a.zip").read_bytes()


def test_a_broken_line_is_not_a_broken_sequence(lasot, monkeypatch):
    """Else a stream would leave out, and a conversion forget, what is there."""
    (dog, *_) = read_dataset("lasot", f"file://{lasot}")

    class Torn(io.BytesIO):
        def read(self, size=-1):
            raise TimeoutError("torn")

    archives._opened.cache_clear()
    monkeypatch.setattr(UrlPath, "open", lambda self, mode="rb": Torn(b"x" * 100))
    with pytest.raises(ConnectionError, match="dog.zip cannot be reached.*torn"):
        dog.frame_bytes(0)


def test_archives_of_a_whole_data_set_are_opened_once(tmp_path, monkeypatch):
    """LaSOT has 70, and shards take from all of them in turns."""
    opened = []
    original = zipfile.ZipFile
    monkeypatch.setattr(archives, "ZipFile", lambda file: opened.append(file) or original(file))
    paths = [MemberPath("", pack(tmp_path / f"{number}.zip", {"a/b.txt": b"%d" % number})) for number in range(70)]
    for _ in range(3):
        assert [int((path / "a" / "b.txt").read_bytes()) for path in paths] == list(range(70))
    assert len(opened) == 70


@pytest.mark.parametrize("name", ["a/1.jpg", "ä/ü.jpg", "a/" + 80 * "x" + ".jpg", "z.jpg"])
def test_members_are_found_by_their_whole_name(tmp_path, name):
    files = {name: b"it", "a/1.jpg2": b"longer", "a/1": b"shorter", "b/": b""}
    root = MemberPath("", pack(tmp_path / "some.zip", files))
    folder, _, last = name.rpartition("/")
    place = root / folder / last if folder else root / last
    assert place.is_file() and not place.is_dir() and place.read_bytes() == b"it"
    assert last in (root / folder if folder else root).listdir()
    assert (root / "b").is_dir() and (root / "b").listdir() == [] and not (root / "c").is_dir()
    for wrong in (root / "a" / "1.jp", root / "a" / "2", root / "zz"):
        assert not wrong.is_file()
        with pytest.raises(FileNotFoundError, match="does not exist"):
            wrong.read_bytes()
