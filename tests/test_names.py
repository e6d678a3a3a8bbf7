"""No path of this machine leaves it."""

import pytest

from ct_hf.names import public_name, repository_of


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("user/tracker", "user/tracker"),
        ("user/clips@v1.0", "user/clips"),
        ("/srv/runs/teacher", "teacher"),
        ("/srv/runs/teacher/", "teacher"),
        ("~/runs/teacher", "teacher"),
        ("outputs/run/student", "student"),
        (r"C:\runs\teacher", "teacher"),
        ("/srv/hub/models--user--tracker/snapshots/" + "0a" * 20, "user/tracker"),
    ],
)
def test_public_name(place, name):
    assert public_name(place) == name


def test_a_folder_that_is_there_is_no_repository(tmp_path, monkeypatch):
    """Although `outputs/student` could be one."""
    monkeypatch.chdir(tmp_path)
    assert repository_of("outputs/student") == ("outputs/student", None)
    (tmp_path / "outputs" / "student").mkdir(parents=True)
    assert repository_of("outputs/student") is None
    assert public_name("outputs/student") == "student"


def test_revision_of_a_repository():
    assert repository_of("user/clips@v1.0") == ("user/clips", "v1.0")
    assert repository_of("/x/datasets--user--clips/snapshots/" + "0a" * 20) == ("user/clips", "0a" * 20)
