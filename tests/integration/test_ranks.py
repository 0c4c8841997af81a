"""Two real ranks under each launcher: who they are, how they fail, and what is left of them."""

import dataclasses
import json
import os
import signal
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.processes import command_of, marked, wait_for
from trainyard import PyTorch, errors
from trainyard.tasks.artifacts.products import StagedData
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.training import train
from trainyard.tasks.training.failure import describe_failure
from trainyard.tasks.training.follow import Follower
from trainyard.tasks.training.launch import launch_spec
from trainyard.tasks.training.run_directory import ABOVE_WORKSPACE
from trainyard.tasks.training.snapshot import snapshot_source

MULTI_RANK = ["mpi", "gloo"]

JOIN = """
import os, sys
from trainyard import Run
run = Run.get_context()
if "OMPI_COMM_WORLD_RANK" in os.environ:
    import horovod.torch as hvd
    hvd.init()
    barrier = hvd.barrier
else:
    import torch.distributed as dist
    dist.init_process_group("gloo")
    barrier = dist.barrier
"""

MEET = """
import os, sys, time
from pathlib import Path
from trainyard import Run
run = Run.get_context()
def barrier():
    Path(f"met-{run.rank}").touch()
    while not all(Path(f"met-{rank}").exists() for rank in range(2)):
        time.sleep(0.02)
"""
"""Ranks that wait for each other without torch, where it is not the point: importing it takes each of them seconds."""

ALONE = {"TRAINYARD_INDEPENDENT_RANKS": "1"}

ALLOWED_CPUS = len(os.sched_getaffinity(0))


class Ranks:
    """Trains scripts as ranks."""

    def __init__(self, root, monkeypatch):
        self.root = root
        self.monkeypatch = monkeypatch

    def __call__(self, script, backend, processes=2, variables=None, on_tick=lambda: None, **changes):
        """The error that ends a training, or None; ``variables`` replace those of the pipeline."""
        source = self.root / "source"
        source.mkdir(exist_ok=True)
        (source / "train.py").write_text(script)
        job = PyTorch(
            source_directory=str(source),
            entry_script="train.py",
            distributed_backend=backend,
            process_count_per_node=processes,
            **changes,
        )
        context = StageContext(store_url=str(self.root / "store"), home=self.root / "home", timeout_s=120)
        snapshot = snapshot_source(source, context.store)
        with self.monkeypatch.context() as patches:
            patches.setattr(train, "launch_spec", partial(_changed_launch_spec, variables or {}))
            patches.setattr(Follower, "tick", _and_then(Follower.tick, on_tick))
            try:
                train.train_model(job, snapshot, StagedData(datasets=()), context, StageKey("train", {"of": script}))
            except errors.PipelineError as error:
                return error
        return None

    @property
    def run(self):
        """The newest run's directory."""
        return max((self.root / "home" / "runs").iterdir())

    @property
    def workspace(self):
        (folder,) = (path for path in (self.root / "home" / "work").iterdir() if path.is_dir())
        return folder.joinpath(*ABOVE_WORKSPACE, "source")

    def logs(self):
        return [path.read_text() for path in sorted((self.run / "ranks").glob("rank-*.log"))]

    def devices(self):
        """What each rank recorded of its device."""
        records = [_records(path) for path in sorted((self.run / "records").glob("rank-*.jsonl"))]
        return [record["value"] for of_rank in records for record in of_rank if record["kind"] == "device"]

    def pids(self):
        return [_records(path)[0]["pid"] for path in sorted((self.run / "records").glob("rank-*.jsonl"))]


def _changed_launch_spec(variables, *arguments):
    spec = launch_spec(*arguments)
    return dataclasses.replace(spec, environment={**spec.environment, **variables})


def _and_then(tick, on_tick):
    def both(*arguments):
        tick(*arguments)
        on_tick()

    return both


def _records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def ranks(tmp_path, monkeypatch):
    return Ranks(tmp_path, monkeypatch)


HOSTILE = ["--log", "--n", "--", "-m", "--nproc-per-node=7", "a b", "$HOME", "it's", "-", "ü\n", "--help"]
SAYS = """
import sys
print(ascii(sys.argv[1:]))
import torch
print('threads:', torch.get_num_threads())
"""

WAYS_TO_JOIN = {
    None: {},
    "mpi": {
        "horovod": "import horovod.torch as hvd; hvd.init(); hvd.shutdown()",
        "mpi4py": "from mpi4py import MPI; MPI.COMM_WORLD.Barrier()",
        "mpi4py by name": "from mpi4py.MPI import COMM_WORLD",
    },
    # once in a process: a second group would meet what the first has left in torchrun's store
    "gloo": {"torch by name": "from torch.distributed import init_process_group as join; join('gloo')"},
}
TRY_TO_JOIN = """
import os, sys
(watch,) = (finder for finder in sys.meta_path if type(finder).__name__ == 'JoinWatch')
for name, way in ways.items():
    before, _ = watch.joined, exec(way)
    print(f'{name}: {before} {watch.joined}')
    watch.joined = False
watch.joined = bool(ways)  # as after one of them alone
"""


@pytest.fixture(scope="module", params=[(None, 1), ("mpi", 2), ("gloo", 2)], ids=["one", "mpi", "gloo"])
def plain(request, tmp_path_factory):
    """A run that ends well, whose ranks have said what they are; looked at by several tests."""
    backend, processes = request.param
    root = tmp_path_factory.mktemp("plain")
    (root / "tmp").mkdir()
    with pytest.MonkeyPatch.context() as patches:
        patches.delenv("OMP_NUM_THREADS", raising=False)
        patches.setenv("TMPDIR", str(root / "tmp"))
        trained = Ranks(root, patches)
        script = f"{SAYS}ways = {WAYS_TO_JOIN[backend]!r}{TRY_TO_JOIN}"
        error = trained(script, backend, processes, script_params=dict.fromkeys(HOSTILE, ""))
    assert error is None
    return trained, processes, list(WAYS_TO_JOIN[backend])


def test_arguments_reach_every_rank_as_they_are(plain):
    ranks, processes, _ = plain
    assert [ascii(HOSTILE) in log for log in ranks.logs()] == [True] * processes


def test_torch_computes_with_this_ranks_share_of_the_cores(plain):
    ranks, processes, _ = plain
    expected = max(1, ALLOWED_CPUS // processes)
    assert [f"threads: {expected}\n" in log for log in ranks.logs()] == [True] * processes
    assert [(each["device"], each["num_threads"]) for each in ranks.devices()] == [("cpu", expected)] * processes
    assert all(each["model"] for each in ranks.devices())


def test_each_way_to_join_the_other_ranks_is_noticed(plain):
    ranks, _, ways = plain
    for log in ranks.logs():
        assert log.splitlines()[2:] == [f"{way}: False True" for way in ways]


def test_what_launchers_say_is_kept_apart_from_the_ranks_logs(plain):
    ranks, processes, ways = plain
    assert [log.count("\n") for log in ranks.logs()] == [2 + len(ways)] * processes, "the script's own lines"
    assert (ranks.run / "launcher.log").read_text() == ""


def test_no_directories_are_left_behind(plain):
    ranks, *_ = plain
    assert list((ranks.root / "tmp").iterdir()) == []


@pytest.mark.parametrize(("backend", "processes"), [(None, 1), ("mpi", 2), ("gloo", 2)])
def test_threads_are_as_many_as_the_user_says(ranks, backend, processes):
    script = "import os; print('threads:', os.environ['OMP_NUM_THREADS'])\n"
    variables = {"OMP_NUM_THREADS": "7", **ALONE}
    assert ranks(script, backend, processes, environment_variables=variables) is None
    assert ranks.logs() == ["threads: 7\n"] * processes
    assert [each["num_threads"] for each in ranks.devices()] == [7] * processes


def test_two_trainings_share_no_directory_of_open_mpi(ranks):
    script = "import os; print(os.environ['PMIX_SERVER_TMPDIR'])\n"
    assert ranks(script, "mpi", environment_variables=ALONE) is None
    (first,) = {Path(log.strip()).parent for log in ranks.logs()}
    assert ranks(script, "mpi", environment_variables=ALONE) is None
    (second,) = {Path(log.strip()).parent for log in ranks.logs()}
    assert first != second
    assert first.name.startswith("trainyard-launch-") and not first.exists(), "removed at the end"


@pytest.mark.parametrize("backend", MULTI_RANK)
@pytest.mark.parametrize(
    ("together", "ending", "expected", "exit_code", "words"),
    [
        (JOIN, "raise ValueError('had enough')", errors.ScriptDefectError, 1, "ValueError: had enough\nTraceback"),
        (MEET, "sys.exit(3)", errors.TrainingFailedError, 3, "SystemExit: 3"),
    ],
    ids=["raise", "exit-3"],
)
def test_a_rank_that_fails_is_named_and_does_not_hang_the_others(
    ranks, backend, together, ending, expected, exit_code, words
):
    script = together + f"barrier()\nif run.rank == 1:\n    {ending}\nbarrier()\nimport time; time.sleep(600)\n"
    error = ranks(script, backend)
    assert type(error) is expected
    assert (error.rank, error.exit_code) == (1, exit_code)
    assert "Rank 1 on" in str(error) and words in str(error)
    assert len(ranks.logs()) == 2
    assert marked(ranks.run.name) == []


@pytest.mark.parametrize(
    ("backend", "ending", "status"),
    [
        ("mpi", "os.kill(os.getpid(), 9)", 137),
        ("mpi", "os.kill(os.getpid(), 11)", 139),
        ("mpi", "os._exit(7)", 7),
        ("gloo", "os.kill(os.getpid(), 9)", 137),
        ("gloo", "os._exit(7)", 7),
    ],
)
def test_the_launcher_ends_as_the_rank_that_could_not_speak(ranks, backend, ending, status, monkeypatch):
    reports = []

    def remember(report, *arguments):
        reports.append(report)
        return describe_failure(report, *arguments)

    monkeypatch.setattr(train, "describe_failure", remember)
    error = ranks(MEET + f"barrier()\nif run.rank == 1:\n    {ending}\ntime.sleep(600)\n", backend)
    assert isinstance(error, errors.TrainingFailedError)
    assert [(report.reason, report.returncode) for report in reports] == [("exited", status)]


@pytest.mark.parametrize("victim", ["launcher", "rank"])
@pytest.mark.parametrize("backend", MULTI_RANK)
def test_kill_9_leaves_nothing(ranks, backend, victim):
    """Of the launcher, and of a rank; ranks have children, and these ignore SIGTERM."""
    child = "import signal, time; signal.signal(15, signal.SIG_IGN); open(f'up-{rank}', 'w'); time.sleep(600)"
    script = MEET + (
        f"import subprocess\nchild = {child!r}.replace('{{rank}}', str(run.rank))\n"
        "subprocess.Popen([sys.executable, '-c', child], start_new_session=True)\n"
        "time.sleep(600)\n"
    )
    killed = []

    def kill():
        if killed or not all((ranks.workspace / f"up-{rank}").exists() for rank in range(2)):
            return
        (supervisor,) = [p for p in psutil.Process().children() if "supervisor.py" in " ".join(command_of(p))]
        (launcher,) = supervisor.children()
        killed.append(launcher.pid if victim == "launcher" else ranks.pids()[0])
        os.kill(killed[0], signal.SIGKILL)

    error = ranks(script, backend, on_tick=kill)
    assert killed
    assert isinstance(error, errors.TrainingFailedError)
    assert wait_for(lambda: marked(ranks.run.name) == [])


def test_ranks_that_joined_each_other_by_rpc(ranks):
    script = (
        "import os\nimport torch.distributed.rpc as rpc\n"
        "rpc.init_rpc('w' + os.environ['RANK'], rank=int(os.environ['RANK']), world_size=2); rpc.shutdown()"
    )
    assert ranks(script, "gloo") is None, ranks.logs()


@pytest.mark.parametrize(
    ("backend", "script"),
    [
        ("mpi", "import torch, horovod.torch, torch.distributed"),
        ("gloo", "import torch.distributed"),
    ],
)
def test_ranks_that_never_joined_each_other(ranks, backend, script):
    error = ranks(f"{script}\nfrom mpi4py import MPI; MPI.Get_library_version()", backend)
    assert type(error) is errors.NeverJoinedError
    assert "each of the 2 trained alone" in str(error)


@pytest.mark.parametrize("backend", MULTI_RANK)
def test_a_world_that_was_not_asked_for_is_refused(ranks, backend):
    asked = {"TRAINYARD_WORLD_SIZE": "3", "TRAINYARD_LOCAL_SIZE": "1", "TRAINYARD_NODE_COUNT": "2"}
    error = ranks("print('must not run')", backend, variables=asked)
    assert type(error) is errors.WorldSizeError
    assert "expected 3 ranks, found 2" in str(error)
    assert "expected 1 ranks on this host, found 2" in str(error)
    assert not any("must not run" in log for log in ranks.logs())


def test_mpi_is_asked_for_the_placement_whatever_the_variables_say(ranks):
    error = ranks("", "mpi", variables={"TRAINYARD_NODE_COUNT": "2"})
    assert type(error) is errors.WorldSizeError
    assert "MPI says: expected 2 hosts, found 1" in str(error)


@pytest.mark.parametrize("backend", MULTI_RANK)
def test_models_that_differ_are_found(ranks, backend):
    script = JOIN + (
        "import torch\nfrom torch import nn\ntorch.manual_seed(0)\n"
        "model = nn.Linear(3, 2)\nrun.assert_in_sync(model)\nprint('in sync')\n"
        "model.bias.data += run.rank\nrun.assert_in_sync(model, name='drifted')\n"
    )
    error = ranks(script, backend)
    assert type(error) is errors.ScriptDefectError
    assert "assert_in_sync('drifted'): of 2 ranks, these differ from rank 0: 1." in str(error)
    assert "parameter 'bias' (float32 [2])" in str(error)
    assert [log.startswith("in sync\n") for log in ranks.logs()] == [True, True]
