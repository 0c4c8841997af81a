"""Which workers' environment is this process's own, so that their cache keys can be computed here."""

import os
import subprocess
import sys

import pytest

from trainyard.flows.pool_cache import WORKER_NAME, _note, _trains_in, note_environment, this_environment
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.training.task import TRAIN

# A training's process, as a worker starts it.
TRAINING = """
import sys
from trainyard.flows.pool_cache import note_environment
from trainyard.tasks.artifacts.store import ArtifactStore
note_environment(ArtifactStore(sys.argv[1]), "gpu")
"""
# A worker: starts a training, says so, and lives until it is told to end.
WORKER = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {TRAINING!r}, sys.argv[1]], check=True)
print("trained", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(str(tmp_path / "store"))


@pytest.fixture
def worker(store):
    """A worker that has trained, and is alive."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, store.url],
        env={**os.environ, WORKER_NAME: "w"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "trained\n"
    yield process
    process.communicate()


def test_a_worker_with_our_python_on_our_machine_is_known_until_it_ends(store, worker):
    assert _trains_in(this_environment(), store, "gpu", "w")
    assert not _trains_in(this_environment(), store, "gpu", "other")
    assert not _trains_in(this_environment(), store, "far", "w")
    worker.communicate()
    assert not _trains_in(this_environment(), store, "gpu", "w"), "its name may be another's now"


def test_what_was_installed_since_makes_it_another_environment(store, worker, monkeypatch):
    before = this_environment()
    libraries = TRAIN.key({}).components
    assert any(name.startswith("library:torch") for name in libraries)
    monkeypatch.setattr("trainyard.tasks.caching.keys._installed_version", lambda distribution: "99.0")
    assert this_environment() != before
    assert not _trains_in(this_environment(), store, "gpu", "w")


def test_a_note_that_cannot_be_read_is_none(store, worker):
    _note(store, "gpu", "w").write_bytes(b"{")
    assert not _trains_in(this_environment(), store, "gpu", "w")


def test_nothing_is_noted_outside_of_a_pool(store):
    note_environment(store, None)
    assert not (store.root / "answers").list_names()
