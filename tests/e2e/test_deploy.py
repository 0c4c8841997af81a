"""``trainyard deploy`` on a server that has nothing of it yet."""

import subprocess

import pytest

from trainyard.deployments.deploy.command import deploy
from trainyard.deployments.deploy.wanted import Options
from trainyard.tasks.settings import Settings


@pytest.fixture
def committed(tmp_path):
    """A project in git, as it was committed."""
    (tmp_path / "train.py").write_text("print(1)\n")
    git = ["git", "-C", tmp_path, "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    for words in (["init"], ["add", "."], ["commit", "-m", "Begin"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    return tmp_path


def test_a_source_tree_with_changes_that_are_not_committed_is_named(
    prefect_server, home, committed, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "1000")

    def said():
        options = Options(project=committed)
        assert not deploy(Settings(), options, yes=False, dry_run=True, confirm=lambda question: False)
        return capsys.readouterr().out

    assert "not committed" not in said()
    (committed / "train.py").write_text("print(2)\n")
    assert f"Note: {committed} has changes that are not committed" in said()
