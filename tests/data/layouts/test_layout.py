"""What is read when, and what stays, in all layouts alike."""

import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ct_hf.data import read_dataset


ROWS = [(11, 12, 20, 16), (12, 12, 20, 16), (13, 12, 20, 16)]
FLAGS = "0\n0\n0\n"

LAZY = {
    "lasot": (
        "cat/cat-1/img",
        "{:08d}.jpg",
        {
            "testing_set.txt": "cat-1",
            "cat/cat-1/groundtruth.txt": ROWS,
            "cat/cat-1/full_occlusion.txt": "0,0,0",
            "cat/cat-1/out_of_view.txt": "0,0,0",
        },
    ),
    "got10k": (
        "test/a",
        "{:08d}.jpg",
        {
            "test/list.txt": "a",
            "test/a/groundtruth.txt": ROWS,
            "test/a/absence.label": FLAGS,
            "test/a/cover.label": "8\n8\n8\n",
        },
    ),
    "trackingnet": ("TEST/frames/a", "{}.jpg", {"TEST/anno/a.txt": ROWS}),
    "tnl2k": ("test/a/imgs", "{}.png", {"test/a/groundtruth.txt": ROWS}),
    "uav123": ("data_seq/UAV123/a", "{:06d}.jpg", {"anno/UAV123/a.txt": ROWS}),
    "otb100": ("A/img", "{:04d}.jpg", {"A/groundtruth_rect.txt": ROWS}),
    "nfs": ("sequences/a", "{:05d}.jpg", {"anno/nfs_a.txt": ROWS}),
    "vot": ("a/color", "{:08d}.jpg", {"list.txt": "a", "a/groundtruth.txt": ROWS}),
    "folder": ("a", "{}.jpg", {"a/groundtruth.txt": ROWS}),
}
"""Folder and names of the frames, and the other files, of layouts that need no list of frames to tell their number."""


@pytest.fixture
def make_root(tmp_path, frames, write):
    def make(layout):
        folder, form, files = LAZY[layout]
        first = 0 if layout == "trackingnet" else 1
        frames(tmp_path / folder, range(first, first + 3), form)
        for name, content in files.items():
            write(tmp_path / name, content)
        return tmp_path, tmp_path / folder

    return make


@pytest.fixture
def listed(monkeypatch):
    """Counts how often folders are listed."""
    counts, listdir, scandir = Counter(), os.listdir, os.scandir

    def counted(list_folder):
        def list_and_count(folder="."):
            counts[Path(folder)] += 1
            return list_folder(folder)

        return list_and_count

    monkeypatch.setattr(os, "listdir", counted(listdir))
    monkeypatch.setattr(os, "scandir", counted(scandir))
    return counts


@pytest.fixture
def texts_read(monkeypatch):
    """Counts how often text files are read."""
    counts, read_text = Counter(), Path.read_text

    def counted(self, *arguments, **options):
        counts[self] += 1
        return read_text(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", counted)
    return counts


@pytest.mark.parametrize("layout", LAZY)
def test_frames_are_listed_for_frames_alone_and_once(make_root, listed, layout):
    root, folder = make_root(layout)
    (sequence,) = read_dataset(layout, root, check=False)
    listed.clear()
    assert len(sequence) == len(sequence.boxes) == 3 and sequence.visible.all() and sequence.annotated
    assert sequence.cover is None or sequence.cover.tolist() == [8, 8, 8]
    assert listed[folder] == 0
    assert sequence.frame(2).size == sequence.size == (64, 48) and len(sequence.files) == len(sequence) == 3
    assert listed[folder] == 1


@pytest.mark.parametrize("layout", [name for name in LAZY if name != "lasot"])
def test_frames_and_boxes_that_differ_in_number(make_root, fails, layout):
    """LaSOT cuts the longer."""
    root, folder = make_root(layout)
    (last,) = folder.glob("*2.*" if layout == "trackingnet" else "*3.*")
    last.unlink()
    by_count = layout in ("uav123", "otb100", "nfs")
    cause, words = ("missing_frame", "lacks frame 3") if by_count else ("length_mismatch", "2 frames")
    with fails(cause, words):
        read_dataset(layout, root)
    (sequence,) = read_dataset(layout, root, check=False)
    assert len(sequence) == 3
    for _ in range(2):
        with fails(cause, words):
            sequence.frame(0)


@pytest.fixture(params=["lasot", "folder"])
def many(request, tmp_path, write):
    """300 sequences: more than were kept once."""
    for number in range(1, 301):
        path = tmp_path / (f"cat/cat-{number}" if request.param == "lasot" else f"cat-{number:03d}")
        images = path / "img" if request.param == "lasot" else path
        images.mkdir(parents=True)
        for frame in (1, 2):
            (images / f"{frame:08d}.jpg").touch()
        write(path / "groundtruth.txt", [(1, 2, number, 4)] * 2)
        for name in ("full_occlusion", "out_of_view") if request.param == "lasot" else ("absent",):
            write(path / f"{name}.txt", f"0 {number % 2}")
    write(tmp_path / "testing_set.txt", "\n".join(f"cat-{number}" for number in range(1, 301)))
    return read_dataset(request.param, tmp_path, check=False)


def test_annotation_is_read_once_however_many_sequences_there_are(many, texts_read, listed):
    for _ in range(2):
        for number, sequence in enumerate(many, start=1):
            assert sequence.boxes[:, 2].tolist() == [number] * 2
            assert sequence.visible.tolist() == [True, number % 2 == 0]
    files = 3 if (many[0].path / "out_of_view.txt").exists() else 2
    assert len(texts_read) == 300 * files and set(texts_read.values()) == {1}
    assert not listed


def test_what_was_read_does_not_go_to_workers(many):
    """Each reads what it needs."""
    before = pickle.dumps(many[7])
    assert many[7].visible.any() and len(many[7].files) == 2
    assert pickle.dumps(many[7]) == before and len(before) < 2000
    copy = pickle.loads(before)
    np.testing.assert_array_equal(copy.boxes, many[7].boxes)
    assert list(copy.files) == list(many[7].files) and repr(copy) == repr(many[7])
