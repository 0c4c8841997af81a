"""Whatever ends a training over two hosts, within 15 seconds nothing of it is left on any of them."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.processes import are_gone, command_of, describe, marked, wait_for
from trainyard import Datastore, PyTorch

PROJECT = Path(__file__).parents[1] / "projects" / "parallel"
WITHIN_S = 15
SECRET = "s3cr3t-of-the-test"
pytestmark = pytest.mark.timeout(400)

CALLER = """
import sys
from trainyard import PyTorch
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.staging.dataset import stage_references
from trainyard.tasks.training.snapshot import snapshot_source
from trainyard.tasks.training.train import train_model
from pathlib import Path
context = StageContext.from_settings()
estimator = PyTorch.model_validate_json(sys.argv[1])
source = snapshot_source(Path(estimator.source_directory), context.store)
data = stage_references(estimator.references, context)
train_model(estimator, source, data, context, StageKey("train", {"config:test": "orphans"}))
"""


@dataclass
class Running:
    """A training that is under way, and every process of it."""

    caller: "subprocess.Popen[bytes]"
    home: Path
    processes: list[psutil.Process]
    bridge: str
    log: Path

    def one(self, *words):
        """The process whose command line has these words."""
        return next(p for p in self.processes if all(any(word in part for part in command_of(p)) for word in words))

    def kill(self, *words, signum=signal.SIGKILL):
        self.one(*words).send_signal(signum)


def caller_process(caller):
    return psutil.Process(caller.pid)


def below(process):
    return psutil.Process(process.pid).children(recursive=True)


def everything(caller, hosts, home):
    sessions = [p for host in hosts.hosts for p in below(host.sshd)]
    return list({*below(caller), psutil.Process(caller.pid), *sessions, *marked(str(home))})


@pytest.fixture
def start(two_hosts, points, home, tmp_path):
    """Start a training, each rank of which has two more processes in sessions of their own."""
    callers = []

    def begin(**changes):
        estimator = PyTorch(
            source_directory=str(PROJECT),
            entry_script="train.py",
            script_params={"--data-dir": Datastore(url=str(points)), "--epochs": 900, "--nap": 0.3, "--stray": ""},
            compute_target=two_hosts.target(lost_after_s=10),
            distributed_backend="mpi",
            node_count=2,
            environment_variables={"PASSWORD": SECRET, "HOROVOD_CYCLE_TIME": "20"},  # by default it fills a core
            **changes,
        )
        with (tmp_path / "log").open("wb") as log:
            env = {**os.environ, "TRAINYARD_HOME": str(home)}
            argv = [sys.executable, "-c", CALLER, estimator.model_dump_json()]
            caller = subprocess.Popen(
                argv,
                env=env,
                stdout=log,
                stderr=log,
            )
        callers.append(caller)

        def under_way():
            logs = [path.read_text() for path in home.glob("runs/*/ranks/rank-*.log")]
            return len(logs) == 2 and all("epoch 1 done" in log for log in logs)

        assert wait_for(lambda: under_way() or caller.poll() is not None, 150)
        assert caller.poll() is None, (tmp_path / "log").read_text()
        found = everything(caller, two_hosts, home)
        running = Running(caller, home, found, two_hosts.bridge, tmp_path / "log")
        assert len([p for p in running.processes if "sleep" in command_of(p)]) == 4
        shown = [p for p in running.processes if any(SECRET in word for word in command_of(p))]
        assert shown == [caller_process(caller)], "values of the environment are in nobody's arguments but the test's"
        return running

    yield begin
    for caller in callers:
        if caller.poll() is None:
            caller.kill()
        caller.wait()


def cut_network(running):
    """The second host is there, and nobody reaches it."""
    subprocess.run(["ip", "link", "set", f"{running.bridge}v2", "down"], check=True)


CASES = {
    "SIGKILL of the pipeline": lambda running: running.caller.kill(),
    "SIGTERM to the pipeline": lambda running: running.caller.terminate(),
    "Ctrl-C": lambda running: running.caller.send_signal(signal.SIGINT),
    "SIGKILL of the supervisor": lambda running: running.kill("supervisor.py"),
    "SIGKILL of the controller": lambda running: running.kill("-m", "trainyard.tasks.training.hosts", "node_count"),
    "SIGKILL of an ssh connection": lambda running: running.kill("BatchMode=yes"),
    "SIGKILL of mpirun": lambda running: running.kill("bin/prterun"),
    "SIGTERM to mpirun": lambda running: running.kill("bin/prterun", signum=signal.SIGTERM),
    "SIGKILL of the daemon on the second host": lambda running: running.kill("prted"),
    "SIGKILL of a rank": lambda running: running.kill("mpi4py", "./train.py"),
    "SIGKILL of an agent": lambda running: running.kill("-I", "-S", "exec(sys.stdin.buffer"),
}


@pytest.mark.parametrize("end", CASES.values(), ids=CASES.keys())
def test_nothing_is_left(start, two_hosts, home, end):
    running = start()
    end(running)
    left = [*running.processes, *marked(str(home))]
    assert wait_for(lambda: are_gone({*left, *marked(str(home))}), WITHIN_S), describe(left)


def test_nothing_is_left_after_the_deadline(start, home):
    running = start(max_run_duration_seconds=45)
    assert wait_for(lambda: running.caller.poll() is not None, 120)
    assert wait_for(lambda: are_gone({*running.processes, *marked(str(home))}), WITHIN_S)
    assert "did not finish within 45 seconds" in running.log.read_text()
    assert running.caller.returncode != 0


def test_nothing_is_left_where_the_network_is_cut(start, home):
    """Nobody can be told: each side notices, after ``lost_after_s``."""
    running = start()
    cut_network(running)
    try:
        gone = wait_for(lambda: are_gone({*running.processes, *marked(str(home))}), 10 + 5 + WITHIN_S)
        assert gone, describe(running.processes)
    finally:
        subprocess.run(["ip", "link", "set", f"{running.bridge}v2", "up"], check=True)
