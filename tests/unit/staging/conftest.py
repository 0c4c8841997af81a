"""What tests of transfers share."""

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
