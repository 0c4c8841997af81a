"""What tests of staging share."""

import pytest

from trainyard.tasks.staging import durability


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def syncs_together(monkeypatch):
    """Whatever the filesystem of the tests is: ``syncfs`` is known to all."""
    monkeypatch.setattr(durability, "_can_sync", lambda directory: True)


@pytest.fixture
def source(tmp_path):
    """A person's directory: four files, two of the same bytes, one without any."""
    directory = tmp_path / "source"
    for name, text in {"a.txt": "alpha", "sub/b.txt": "beta", "sub/deep/c d.txt": "", "same.txt": "alpha"}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory
