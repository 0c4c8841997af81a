"""Which commit a project is at, and whether its files differ from it."""

import subprocess

import pytest

from trainyard.deployments.deploy.wanted import source_version


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with one file, of which a repository further up knows nothing; git has no settings of this machine."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("print(1)\n")
    return folder


def git(folder, *words):
    person = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(["git", "-C", folder, *person, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_commit_is_named_and_what_differs_from_it_is_dirty(project):
    git(project, "init")
    git(project, "add", ".")
    git(project, "commit", "-m", "Begin")
    commit = git(project, "rev-parse", "HEAD")[:12]
    assert source_version(project) == commit
    (project / "train.py").write_text("print(2)\n")
    assert source_version(project) == f"{commit}-dirty"


def test_outside_of_git_and_without_it_there_is_no_version(project, monkeypatch):
    assert source_version(project) == "unversioned"
    git(project, "init")
    assert source_version(project) == "unversioned", "nothing is committed"
    monkeypatch.setenv("PATH", str(project))
    assert source_version(project) == "unversioned"
