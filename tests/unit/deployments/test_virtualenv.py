import shutil

import pytest

from trainyard.deployments.environment.commands import CommandLog
from trainyard.deployments.environment.problems import InstallerKilledError, SetupError
from trainyard.deployments.environment.virtualenv import ensure_virtualenv, installing, is_usable, python_of


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("environments") / "with a space"
    assert ensure_virtualenv(folder, CommandLog(folder.parent / "log"))
    return folder


@pytest.fixture
def venv(made, tmp_path):
    """One that a test may spoil."""
    yield made
    (made / ".trainyard-installing").unlink(missing_ok=True)
    (made / ".trainyard-place").write_text(str(made))


def test_a_usable_one_is_kept(venv):
    assert not ensure_virtualenv(venv, CommandLog(venv.parent / "log"))


def test_none_is_not_usable(tmp_path):
    assert not is_usable(tmp_path / "nothing")


def test_a_moved_one_is_not_usable(venv, tmp_path):
    moved = shutil.copytree(venv, tmp_path / "moved", symlinks=True)
    assert not is_usable(moved)


def test_one_of_another_python_is_not_usable(tmp_path):
    python_of(tmp_path).parent.mkdir()
    python_of(tmp_path).write_text("#!/bin/sh\necho 3.1\n")
    python_of(tmp_path).chmod(0o755)
    assert not is_usable(tmp_path)


def test_one_without_an_interpreter_is_not_usable(tmp_path):
    python_of(tmp_path).parent.mkdir()
    python_of(tmp_path).symlink_to(tmp_path / "gone")
    assert not is_usable(tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, InstallerKilledError])
def test_an_installation_that_broke_off_is_not_trusted(venv, error):
    with pytest.raises(error), installing(venv):
        raise error
    assert not is_usable(venv)


def test_an_installer_that_failed_by_itself_is_trusted(venv):
    with pytest.raises(SetupError), installing(venv):
        raise SetupError("no network")
    assert is_usable(venv)


def test_one_that_another_tool_made_is_adopted(venv):
    (venv / ".trainyard-place").unlink()
    assert is_usable(venv)


def test_where_python_cannot_make_it_the_reason_is_given(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot make the virtual environment"):
        ensure_virtualenv(tmp_path / "file" / "venv", CommandLog(tmp_path / "log"))
