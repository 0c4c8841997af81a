"""A repository in miniature that the real set-up script runs in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PYTHON = Path(sys.executable).resolve()


class Repository:
    """A copy of what ``make setup`` reads, with a lock of one package that exists nowhere."""

    def __init__(self, root):
        self.root = root
        environment = root / "deployments" / "environment"
        shutil.copytree(ROOT / "deployments" / "environment", environment, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "deployments" / "__init__.py", root / "deployments")
        (root / "tasks").mkdir()
        for name in ("__init__.py", "credentials.py", "errors.py"):
            shutil.copy(ROOT / "tasks" / name, root / "tasks")
        shutil.copytree(ROOT / "trainyard", root / "trainyard", symlinks=True)
        shutil.copy(ROOT / "pyproject.toml", root)
        (environment / "requirements.lock").write_text("no-such-package-of-trainyard==1.0\n")

    def setup(self, *, path=None, **variables):
        """Run the script as make does, with an interpreter that has nothing installed."""
        env = {"PATH": path or os.environ["PATH"], "HOME": str(self.root), **variables}
        script = self.root / "deployments" / "environment" / "bootstrap.py"
        return subprocess.run([PYTHON, script], env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture
def repository(tmp_path):
    """A fresh one."""
    root = tmp_path / "a clone"
    root.mkdir()
    return Repository(root)


@pytest.fixture
def programs(tmp_path):
    """Makes a folder for PATH that holds links to some programs of this machine and nothing else."""

    def link(*names):
        folder = tmp_path / "programs"
        folder.mkdir()
        for name in names:
            (folder / name).symlink_to(shutil.which(name))
        return str(folder)

    return link
