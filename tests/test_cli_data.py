import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from ct_hf import OSTrackConfig, data, hub
from ct_hf.cli import main
from ct_hf.data import FolderSequence


@pytest.fixture
def root(tmp_path):
    """Three drawn sequences of four frames."""
    root = tmp_path / "sequences"
    for number in range(3):
        folder = root / f"square{number}"
        folder.mkdir(parents=True)
        for index in range(4):
            frame = np.random.default_rng(number).integers(0, 80, (60, 80, 3), dtype=np.uint8)
            frame[20:36, 10 + 5 * index : 26 + 5 * index] = 250
            Image.fromarray(frame).save(folder / f"{index}.jpg")
        (folder / "groundtruth.txt").write_text("".join(f"{10 + 5 * index},20,16,16\n" for index in range(4)))
    return root


def test_convert_writes_what_load_dataset_takes(root, tmp_path, capsys):
    out = tmp_path / "clips"
    arguments = ["data", "convert", "folder", str(root), str(out), "--stride", "100"]
    assert main(arguments) == 0
    assert "3 sequences, 6 clips, 12 frames" in capsys.readouterr().out
    rows = list(load_dataset(str(out), split="train", streaming=True))
    assert len(rows) == 6 and {len(row["frames"]) for row in rows} == {2}
    assert main([*arguments, "--split", "test"]) == 1
    assert "`split` of folder must be None" in capsys.readouterr().err
    assert main([*arguments[:-1], "50"]) == 1
    assert "`stride`=100, got 50" in capsys.readouterr().err


def test_too_much_left_out_is_an_error_with_a_card_and_without_a_push(root, tmp_path, capsys, monkeypatch):
    pushed = []
    monkeypatch.setattr(hub, "push_dataset", lambda done, name: pushed.append(name) or f"hub/{name}")
    (root / "square1" / "2.jpg").write_bytes(b"")
    out = tmp_path / "clips"
    arguments = ["data", "convert", "folder", str(root), str(out), "--push-to-hub", "user/squares"]
    assert main(arguments) == 1
    assert "--push-to-hub needs --license" in capsys.readouterr().err and not out.exists(), "said before hours of work"
    arguments += ["--license", "other"]
    assert main(arguments) == 1
    assert "1 of 12 frames were left out (corrupt_image: 1), 8.33 %" in capsys.readouterr().err
    assert "square1, frame 2: corrupt_image" in (out / "README.md").read_text() and not pushed
    assert len(list(out.glob("data/*.parquet"))) == 3
    assert main([*arguments, "--max-bad", "0.1"]) == 0
    assert pushed == ["user/squares"] and "pushed to hub/user/squares" in capsys.readouterr().out


def test_show_draws_the_pairs_of_a_tracker(root, tmp_path, capsys):
    (root / "square2" / "groundtruth.txt").unlink()
    sheets = [tmp_path / "pictures" / f"{number}.png" for number in range(4)]
    arguments = ["data", "show", "folder", str(root), "--pairs", "2", "--out"]
    assert main([*arguments, str(sheets[0])]) == 0
    told = capsys.readouterr()
    assert "2 pairs of 3 of 3 sequences" in told.out
    OSTrackConfig(template_size=32, search_size=64).save_pretrained(tmp_path / "tracker")
    assert main([*arguments, str(sheets[1]), "--tracker", str(tmp_path / "tracker")]) == 0
    assert main([*arguments, str(sheets[2])]) == 0
    assert main([*arguments, str(sheets[3]), "--seed", "1"]) == 0
    large, small, again, other = (Image.open(sheet) for sheet in sheets)
    assert large.height > 256 > small.height > 64
    assert large.tobytes() == again.tobytes() != other.tobytes()
    assert "missing_ground_truth" in told.err + capsys.readouterr().err


def test_training_splits_are_taken_first(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for command in (
        ["convert", "lasot", str(tmp_path / "empty"), str(tmp_path / "out")],
        ["show", "lasot", str(tmp_path / "empty")],
    ):
        assert main(["data", *command]) == 1
        assert "training_set.txt" in capsys.readouterr().err, "nobody trains on a test split by leaving an option out"


def test_show_reads_no_more_sequences_than_a_picture_needs(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ct_hf.cli_data._SEQUENCES_A_PAIR", 1)
    read = []
    boxes = FolderSequence.boxes.func
    monkeypatch.setattr(FolderSequence, "boxes", property(lambda self: read.append(self.name) or boxes(self)))
    assert main(["data", "show", "folder", str(root), "--pairs", "2", "--out", str(tmp_path / "sheet.png")]) == 0
    assert "2 pairs of 2 of 3 sequences" in capsys.readouterr().out and len(set(read)) == 2


def test_arguments_that_cannot_be_are_told_before_the_work(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data, "read_dataset", None)
    monkeypatch.setattr(data, "convert_dataset", None)
    for rest, words in (
        (
            ["convert", "folder", str(root), str(tmp_path / "out"), "--max-bad", "5"],
            "--max-bad must be a share from 0 to 1",
        ),
        (
            ["convert", "folder", str(root), str(tmp_path / "out"), "--license", "MIT"],
            "is not spelled as the Hub does",
        ),
        (
            ["convert", "folder", str(root), str(tmp_path / "out"), "--license", "mit", "--push-to-hub", "a/b/c"],
            "a/b/c",
        ),
        (["show", "folder", str(root), "--out", str(tmp_path / "sheet")], "does not end as an image does"),
    ):
        assert main(["data", *rest]) == 1
        assert words in capsys.readouterr().err
