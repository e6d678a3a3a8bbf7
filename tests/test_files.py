import pytest

from ct_hf.files import write_whole


def test_files_appear_when_they_are_whole(tmp_path):
    def write(path):
        path.write_text("hal")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", write)
    assert list(tmp_path.iterdir()) == []
    write_whole(tmp_path / "file", lambda path: path.write_text("whole"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "whole"
