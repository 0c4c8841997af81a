import sys

import pytest

from trainyard.deployments.environment.stamp import STAMP_NAME, changed_since_setup, write_stamp


@pytest.fixture
def venv(repository):
    folder = repository.root / ".venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    write_stamp(repository.root, folder)
    return folder


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_nothing_changed(repository, venv):
    assert changed_since_setup(repository.root, venv) == []


def test_a_changed_lock(repository, venv):
    edit(repository.root / "deployments" / "environment" / "requirements.lock", "==1.0", "==1.1")
    assert changed_since_setup(repository.root, venv) == ["requirements.lock"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"prefect>=3.8.8,<4"', '"prefect>=3.8.9,<4"', ["pyproject.toml"]),
        ('trainyard = "trainyard.cli:main"', 'train = "trainyard.cli:main"', ["pyproject.toml"]),
        ('target-version = "py310"', 'target-version = "py311"', []),
        ("timeout = 600", "timeout = 500", []),
    ],
    ids=["dependency", "script", "linter", "tests"],
)
def test_only_the_part_of_pyproject_that_decides(repository, venv, old, new, expected):
    edit(repository.root / "pyproject.toml", old, new)
    assert changed_since_setup(repository.root, venv) == expected


@pytest.mark.parametrize("name", ["recipe.py", "cmake/project.cmake", "horovod.txt"])
def test_changed_set_up_code(repository, venv, name):
    path = repository.root / "deployments" / "environment" / name
    path.write_text(path.read_text() + "# more\n")
    assert changed_since_setup(repository.root, venv) == ["set-up code"]


def test_a_moved_repository(repository, venv):
    moved = repository.root.rename(repository.root.parent / "moved")
    assert changed_since_setup(moved, moved / ".venv") == ["place"]


def test_another_python(repository, venv, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    assert changed_since_setup(repository.root, venv) == ["Python"]


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"place": 1}'])
def test_a_damaged_stamp_is_no_stamp(repository, venv, damage):
    (venv / STAMP_NAME).write_text(damage)
    assert len(changed_since_setup(repository.root, venv)) == 5


def test_an_environment_that_is_gone(repository, venv):
    (venv / "bin" / "python").unlink()
    assert len(changed_since_setup(repository.root, venv)) == 5
