"""Horovod over two real hosts that share nothing but their Python environment."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from trainyard import Datastore, PyTorch
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.staging.dataset import stage_references
from trainyard.tasks.training.snapshot import snapshot_source
from trainyard.tasks.training.train import train_model

PROJECT = Path(__file__).parents[1] / "projects" / "parallel"
pytestmark = pytest.mark.timeout(300)
KEY = StageKey("train", {"config:test": "hosts"})


@pytest.fixture
def project(tmp_path):
    return Path(shutil.copytree(PROJECT, tmp_path / "parallel"))


@pytest.fixture
def train(two_hosts, project, points, home):
    """Train on the two hosts, without a pipeline around it."""
    context = StageContext.from_settings()

    def run(script_params=None, context=context, target=None, **changes):
        estimator = PyTorch(
            source_directory=str(project),
            entry_script="train.py",
            script_params={"--data-dir": Datastore(url=str(points)), **(script_params or {})},
            compute_target=target or two_hosts.target(),
            distributed_backend="mpi",
            **{"node_count": 2, **changes},
        )
        source = snapshot_source(project, context.store)
        data = stage_references(estimator.references, context)
        return train_model(estimator, source, data, context, KEY)

    return run


def outputs(trained, home):
    """What each rank wrote of itself, and the files of the run."""
    store = StageContext.from_settings().store
    names = [entry.path for entry in store.list_tree(trained.outputs).entries]
    ranks = [json.loads(store.read_entry(trained.outputs, name)) for name in names if name.startswith("rank-")]
    return sorted(ranks, key=lambda rank: rank["rank"]), names


def run_directories(home):
    return sorted((home / "runs").iterdir())


def test_two_ranks_train_on_two_hosts(train, two_hosts, home, caplog):
    caplog.set_level(logging.INFO)
    trained = train({"--echo": "hello"})
    ranks, names = outputs(trained, home)
    assert [(rank["local_size"], rank["cross_size"]) for rank in ranks] == [(1, 2), (1, 2)]
    store = StageContext.from_settings().store
    hosts = [
        json.loads(store.read_entry(trained.records, f"rank-{n:05d}.jsonl").splitlines()[0])["host"] for n in (0, 1)
    ]
    assert hosts == ["node1", "node2"]
    assert store.read_entry(trained.outputs, "same.txt") == b"from rank 0"
    logs = {entry.path for entry in store.list_tree(trained.logs).entries}
    assert {"ranks/rank-00000.log", "ranks/rank-00001.log", "script-0.log", "script-1.log", "launcher.log"} <= logs
    assert "[rank 1] rank 1 of 2 says hello" in caplog.messages
    left = two_hosts.hosts[0].run("find", str(home / "node"), "-path", "*/runs/*")
    assert left == "", "a node's part of a run is removed when it is here"
