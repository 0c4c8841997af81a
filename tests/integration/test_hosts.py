"""Horovod over two real hosts that share nothing but their Python environment."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from trainyard import Datastore, PyTorch
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import TrainingFailedError, TrainingStalledError
from trainyard.tasks.staging.dataset import stage_references
from trainyard.tasks.training.run_directory import checkpoints_directory
from trainyard.tasks.training.snapshot import snapshot_source
from trainyard.tasks.training.stall import StallWatch
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


def outputs(trained):
    """What each rank wrote of itself."""
    store = StageContext.from_settings().store
    names = [entry.path for entry in store.list_tree(trained.outputs).entries]
    ranks = [json.loads(store.read_entry(trained.outputs, name)) for name in names if name.startswith("rank-")]
    return sorted(ranks, key=lambda rank: rank["rank"])


def run_directories(home):
    return sorted((home / "runs").iterdir())


def test_two_ranks_train_on_two_hosts(train, two_hosts, home, caplog):
    caplog.set_level(logging.INFO)
    trained = train({"--echo": "hello"})
    ranks = outputs(trained)
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


def test_data_is_staged_once_a_node_and_what_a_node_has_is_not_sent_again(train, home):
    ranks = outputs(train(process_count_per_node=2))
    assert [rank["node"] for rank in ranks] == [0, 0, 1, 1]
    inodes = [rank["points_inode"] for rank in ranks]
    assert (inodes[0], inodes[2]) == (inodes[1], inodes[3])
    assert [rank["points_inode"] for rank in outputs(train())] == inodes[::2]
    first, second = [(run / "launcher.log").read_text() for run in run_directories(home)]
    assert "sent 0 bytes" not in first
    assert second.count("sent 0 bytes") == 2


def test_damage_on_a_node_is_mended(train, two_hosts, home):
    train()
    host = two_hosts.hosts[1]
    (path,) = host.run("find", str(home / "node" / "datasets"), "-name", "points.npy").split()
    host.run("sh", "-c", f"chmod u+w {path} && echo rubbish > {path}")
    train()
    log = (run_directories(home)[1] / "launcher.log").read_text()
    assert log.count("sent 0 bytes") == 1, "the damaged object was sent to one host, and nothing to the other"


def test_hostile_names_and_values_arrive_as_they_are(train, project, points, home):
    hostile = 'it\'s "quoted" $HOME `id` \\ ; *\nnew line \u00fc\u4e2d -x'
    names = [
        "a b.txt",
        "it's.txt",
        'double".txt',
        "-leading.txt",
        "line\nbreak.txt",
        "\u00fc\u4e2d.txt",
        "$HOME;id.txt",
    ]
    for name in names:
        (project / name).write_text(name)
        (points / name).write_text(name)
    trained = train({"--echo": hostile}, environment_variables={"HOSTILE": hostile, "PATH": "/usr/bin:/bin:/nowhere"})
    ranks = outputs(trained)
    for rank in ranks:
        assert rank["argv"][-2:] == ["--echo", hostile]
        assert rank["environment"]["HOSTILE"] == hostile
        assert set(names) <= set(rank["files"])
        assert rank["environment"]["PATH"].endswith("/usr/bin:/bin:/nowhere")


def test_only_what_is_meant_for_ranks_reaches_them(train, home, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_HEAD", "x")
    trained = train(environment_variables={"MINE": "yes"}, process_count_per_node=2)
    ranks = outputs(trained)
    assert [(rank["local_size"], rank["cross_size"]) for rank in ranks] == [(2, 2)] * 4
    for rank in ranks:
        environment = rank["environment"]
        assert "SECRET_OF_THE_HEAD" not in environment
        assert environment["MINE"] == "yes"
        assert environment["OMP_NUM_THREADS"] == "1"
        assert environment["CUDA_VISIBLE_DEVICES"] == ""


def test_a_rank_that_raises_is_named_with_its_host(train, home):
    with pytest.raises(TrainingFailedError, match=r"Rank 1 on node2 failed first.*has had enough") as caught:
        train({"--raise-on-rank": 1})
    assert caught.value.rank == 1
    assert "train.py" in str(caught.value)


def test_what_stalls_says_where_each_rank_was_and_another_attempt_goes_on_whatever_the_order_of_the_hosts(
    train, two_hosts, home, monkeypatch
):
    class FromTheFirstEpoch(StallWatch):  # however long the hosts take to come to it
        def stalled(self):
            logs = [path.read_text() for path in home.glob("runs/*/ranks/rank-*.log")]
            return len(logs) == 2 and all("epoch 1 done" in log for log in logs) and super().stalled()

    monkeypatch.setattr("trainyard.tasks.training.train.StallWatch", FromTheFirstEpoch)
    with pytest.raises(TrainingStalledError) as caught:
        train({"--hang-rank": 1}, stall_timeout_s=4)
    first, second = [line for line in str(caught.value).splitlines() if line.startswith("  rank ")]
    assert first.startswith("  rank 0: File ") and "no answer" not in first, "in an allreduce that rank 1 never joins"
    assert second.startswith("  rank 1: File ") and "in go_no_further" in second
    for rank in (0, 1):
        assert "most recent call first" in (run_directories(home)[0] / "ranks" / f"rank-{rank:05d}.log").read_text()
    assert (checkpoints_directory(home, KEY) / "epochs" / "last.pt").exists()
    backwards = two_hosts.target(hosts=[host.address for host in reversed(two_hosts.hosts)])
    trained = train(target=backwards)
    assert trained.resumed
    store = StageContext.from_settings().store
    for rank, host in ((0, "node2"), (1, "node1")):
        records = [
            json.loads(line) for line in store.read_entry(trained.records, f"rank-{rank:05d}.jsonl").splitlines()
        ]
        assert records[0]["host"] == host
        assert records[1]["name"] == "started_at_epoch"
        assert records[1]["value"] == 1


def test_a_host_that_goes_away_before_training_is_named(train, two_hosts):
    addresses = [two_hosts.hosts[0].address, two_hosts.hosts[1].address.rsplit(".", 1)[0] + ".77"]
    with pytest.raises(TrainingFailedError, match=rf"host {addresses[1]}: it does not answer on port 22"):
        train(target=two_hosts.target(hosts=addresses))
