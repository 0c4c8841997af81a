"""Ranks that really end badly, under one process and under ``mpirun``: who failed first, how, and who is left."""

import json
import os
import shutil
import signal
import threading
import uuid
from pathlib import Path

import pytest

from tests.processes import describe, marked, wait_for
from trainyard import PyTorch
from trainyard.tasks import errors
from trainyard.tasks.artifacts.products import StagedData
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.training.snapshot import snapshot_source
from trainyard.tasks.training.stall import StallWatch
from trainyard.tasks.training.train import train_model

PROJECT = Path(__file__).parents[1] / "projects" / "failing"


def ranks(count):
    return {"process_count_per_node": count, "distributed_backend": "mpi"}


@pytest.fixture
def train(home, tmp_path, monkeypatch):
    """Train the failing project to its end; keyword arguments are the script's, or the estimator's."""
    monkeypatch.setenv("TRAINYARD_STOP_GRACE_S", "3")  # some ranks take all of it
    project = shutil.copytree(PROJECT, tmp_path / "failing")
    context = StageContext(store_url=str(tmp_path / "store"), home=home)
    mark = f"trainyard-failing-{uuid.uuid4().hex}"

    def run(params=None, **changes):
        estimator = PyTorch(
            source_directory=str(project),
            entry_script="train.py",
            script_params={"--mark": mark, **(params or {})},
            environment_variables={"FAILING_MARK": mark},
            **changes,
        )
        source = snapshot_source(project, context.store)
        return train_model(estimator, source, StagedData(), context, StageKey("train", {"test": mark}))

    yield run
    assert wait_for(lambda: not marked(mark)), describe(marked(mark))


ENDINGS = [
    ("raise", errors.ScriptDefectError, ["KeyError: 'missing'", "Traceback", "about to end: raise"]),
    ("raise-beside-a-thread", errors.TrainingFailedError, ["ConnectionError: the network went away"]),
    ("segfault", errors.TrainingFailedError, ["SIGSEGV", "segmentation fault", "in string_at", "about to end"]),
    ("abort", errors.TrainingFailedError, ["SIGABRT", "about to end: abort"]),
    ("kill", errors.TrainingFailedError, ["SIGKILL", "counted no kill for want of memory", "about to end: kill"]),
    ("exit-3", errors.TrainingFailedError, ["SystemExit: 3 (exit status 3)", "about to end: exit-3"]),
    ("_exit-3", errors.TrainingFailedError, ["exit status 3 and without a Python exception", "about to end: _exit-3"]),
]


@pytest.mark.parametrize("launched", ["single", "mpi"])
@pytest.mark.parametrize(("end", "expected", "words"), ENDINGS, ids=[ending[0] for ending in ENDINGS])
def test_the_rank_that_ends_badly_is_named_with_how_it_ended(train, home, launched, end, expected, words):
    changes = ranks(2) if launched == "mpi" else {}
    rank = len(changes) // 2
    with pytest.raises(expected) as raised:
        train({"--end": end, "--rank": rank, "--others": "collective", "--child": ""}, **changes)
    message = str(raised.value)
    assert f"Rank {rank} on " in message and "failed first" in message
    assert not [word for word in words if word not in message], message
    assert raised.value.rank == rank
    (run,) = (home / "runs").iterdir()
    for other in range(rank + 1):
        assert f"rank {other} begins" in (run / "ranks" / f"rank-{other:05d}.log").read_text()


WAITS = ["collective", "native-call", "deaf", "data-loader"]
"""What ranks can be in while another one fails: one rank in each."""


@pytest.mark.parametrize("end", ["raise", "kill"])
def test_a_rank_that_fails_never_leaves_the_others_waiting(train, home, end):
    with pytest.raises(errors.PipelineError) as raised:
        train({"--end": end, "--rank": 0, "--others": ",".join(WAITS), "--child": ""}, **ranks(1 + len(WAITS)))
    assert "Rank 0 on " in str(raised.value)
    exits = [json.loads(path.read_text()) for path in sorted(home.glob("runs/*/ranks/rank-*.exit.json"))]
    assert [exit["rank"] for exit in exits if exit["stopped"]] == list(range(1, 1 + len(WAITS))), exits


@pytest.fixture
def watch_from_the_end(home, monkeypatch):
    """Nothing counts as stalled before the chosen rank is at its end, however long the others take to begin."""

    class FromTheEnd(StallWatch):
        def stalled(self):
            logs = [path.read_text() for path in home.glob("runs/*/ranks/rank-*.log")]
            return any("about to end" in log for log in logs) and super().stalled()

    monkeypatch.setattr("trainyard.tasks.training.train.StallWatch", FromTheEnd)


def test_a_run_that_stalls_is_stopped_and_says_where_each_rank_was(train, home, watch_from_the_end):
    """One rank alone enters an allreduce, one sits in a C call that holds the interpreter; the last only waits."""
    last = len(WAITS)
    with pytest.raises(errors.TrainingStalledError) as raised:
        params = {"--end": "wait", "--rank": last, "--others": ",".join(WAITS)}
        train(params, stall_timeout_s=3, **ranks(last + 1))
    message = str(raised.value)
    where = [line for line in message.splitlines() if line.startswith("  rank ")]
    assert [line.partition(":")[0] for line in where] == [f"  rank {rank}" for rank in range(last + 1)]
    assert "in collective" in where[0]
    assert "in native_call" in where[1]
    assert "in deaf" in where[2]
    assert "in data_loader" in where[3] or "multiprocessing" in where[3], message
    assert "in <lambda>" in where[last]
    (run,) = (home / "runs").iterdir()
    for rank in range(last + 1):
        assert "most recent call first" in (run / "ranks" / f"rank-{rank:05d}.log").read_text()


def test_a_run_that_stalls_in_one_process(train, watch_from_the_end):
    with pytest.raises(errors.TrainingStalledError, match=r"rank 0: File .* in native_call"):
        train({"--end": "native-call"}, stall_timeout_s=2)


CGROUP = Path("/sys/fs/cgroup/memory" if Path("/sys/fs/cgroup/memory").is_dir() else "/sys/fs/cgroup")


@pytest.fixture
def small_memory(tmp_path):
    """A cgroup of 600 MB that this process moves into for the while."""
    limit = "memory.limit_in_bytes" if CGROUP.name == "memory" else "memory.max"
    group = CGROUP / f"trainyard-{tmp_path.name}"
    try:
        group.mkdir()
        (group / limit).write_text(str(600 << 20))
    except OSError as error:
        pytest.skip(f"a memory cgroup of its own cannot be made here: {error}")
    yield group
    assert wait_for(lambda: (group / "cgroup.procs").read_text() == "")
    group.rmdir()


def test_a_rank_that_the_kernel_kills_for_want_of_memory_is_told_so(train, small_memory, tmp_path):
    procs = f"open('{small_memory}/cgroup.procs', 'w').write(str(os.getpid()))"
    script = tmp_path / "failing" / "train.py"
    script.write_text(script.read_text().replace("hoard = []", f"hoard = []; {procs}"))
    with pytest.raises(errors.TrainingFailedError) as raised:
        train({"--end": "hog"})
    assert "SIGKILL" in str(raised.value)
    assert "Memory ran out" in str(raised.value)


def test_the_logs_of_all_ranks_are_kept_when_one_fails(train, home, tmp_path, caplog):
    with pytest.raises(errors.TrainingFailedError), caplog.at_level("ERROR"):
        train({"--end": "kill", "--rank": 1, "--others": "wait"}, **ranks(2))
    assert "its logs as" in caplog.text
    stored = [path.read_bytes() for path in (tmp_path / "store" / "objects").rglob("*") if path.is_file()]
    for rank in (0, 1):
        assert any(f"rank {rank} begins\n".encode() in data[:20] for data in stored)
    assert os.path.isdir(home)


class Terminated(BaseException):
    """What a cancellation raises in the thread that waits, as Prefect's ``TerminationSignal`` does."""


@pytest.fixture
def raised_by_sigterm():
    def terminate(signum, frame):
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("ending", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)], ids=["ctrl-c", "cancel"]
)
def test_what_was_written_is_kept_when_training_is_ended_from_outside(
    train, home, tmp_path, raised_by_sigterm, caplog, ending, expected
):
    def written():
        return any("about to end" in path.read_text() for path in home.glob("runs/*/ranks/rank-*.log"))

    def end():
        if wait_for(written, seconds=120):
            os.kill(os.getpid(), ending)

    thread = threading.Thread(target=end)
    thread.start()
    try:
        with pytest.raises(expected):
            train({"--end": "wait", "--write": ""})
    finally:
        thread.join()
    (run,) = (home / "runs").iterdir()
    assert (run / "source" / "outputs" / "model.txt").read_text() == "half trained"
    assert "about to end" in (run / "ranks" / "rank-00000.log").read_text()
    kept = [path.read_bytes() for path in (tmp_path / "store" / "objects").rglob("*") if path.is_file()]
    assert b"half trained" in kept and b"a line of a log" in kept
    assert caplog.text.count(str(run)) == 1, "where it is is said once"
    assert f"what it left is in {run}\n" in caplog.text, "and there is no checkpoint to go on from"
