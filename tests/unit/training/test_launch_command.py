from pathlib import Path

import pytest

from trainyard.tasks.runtime.argv import unshielded
from trainyard.tasks.training.launchers.choose import build_launch_command
from trainyard.tasks.training.launchers.command import LaunchSpec

BACKENDS = [None, "mpi", "gloo", "nccl"]


def spec(**changes):
    values = {
        "python": "/venv/bin/python",
        "entry_script": "train.py",
        "arguments": ("--data-dir", "/data/a b", "--flag"),
        "working_directory": Path("/runs/1/source"),
        "environment": {"HOME": "/home/me"},
        "process_count_per_node": 1,
        "node_count": 1,
        "num_cpus": 8,
        "as_root": False,
        **changes,
    }
    return LaunchSpec(**values)


def test_one_process_is_plain_python():
    command = build_launch_command(spec())
    assert command.argv == (
        "/venv/bin/python",
        "-u",
        "-m",
        "trainyard.tasks.runtime",
        "./train.py",
        "--data-dir",
        "/data/a b",
        "--flag",
    )
    assert command.cwd == Path("/runs/1/source")
    assert command.env == {"HOME": "/home/me", "OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": ""}
    assert command.timeout_s is None


def test_mpi_starts_one_rank_a_process_through_mpi4py():
    command = build_launch_command(spec(distributed_backend="mpi", process_count_per_node=2, timeout_s=60.0))
    assert command.argv[0] == "mpirun"
    assert command.argv[1:5] == ("-np", "2", "-H", "localhost:2")
    start = command.argv.index("/venv/bin/python")
    assert command.argv[start : start + 6] == (
        "/venv/bin/python",
        "-u",
        "-m",
        "mpi4py",
        "-m",
        "trainyard.tasks.runtime",
    )
    assert command.argv[-4:] == ("./train.py", "--data-dir", "/data/a b", "--flag")
    assert command.timeout_s == 60.0


def test_each_mpirun_has_a_session_directory_of_its_own_unless_one_is_named():
    job = {"distributed_backend": "mpi", "process_count_per_node": 2}
    four, five = "OMPI_MCA_orte_tmpdir_base", "PRTE_MCA_prte_tmpdir_base"
    assert set(build_launch_command(spec(**job)).scratch_variables) == {four, five}
    command = build_launch_command(spec(**job, environment={five: "/fast/disk"}))
    assert command.scratch_variables == (four,)
    assert command.env[five] == "/fast/disk"


def test_mpi_takes_the_mpirun_beside_the_interpreter(tmp_path):
    (tmp_path / "mpirun").touch()
    command = build_launch_command(spec(distributed_backend="mpi", python=str(tmp_path / "python")))
    assert command.argv[0] == str(tmp_path / "mpirun")


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_torchrun_starts_the_ranks_of_torch_distributed(backend):
    command = build_launch_command(spec(distributed_backend=backend, process_count_per_node=2, timeout_s=60.0))
    assert command.argv == (
        *("/venv/bin/python", "-m", "trainyard.tasks.runtime.torchrun"),
        *("--standalone", "--nnodes", "1", "--nproc-per-node", "2", "--max-restarts", "0", "--log-dir", "/dev/null"),
        *("--no-python", "--", "/venv/bin/python", "-u", "-m", "trainyard.tasks.runtime"),
        *("./train.py", "--data-dir", "/data/a b", "--flag"),
    )
    assert command.cwd == Path("/runs/1/source")
    assert command.env == {"HOME": "/home/me", "OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": ""}
    assert command.timeout_s == 60.0


@pytest.mark.parametrize(("as_root", "expected"), [(True, True), (False, False)])
def test_mpi_is_told_when_it_runs_as_root(as_root, expected):
    command = build_launch_command(spec(distributed_backend="mpi", as_root=as_root))
    assert ("--allow-run-as-root" in command.argv) is expected


@pytest.mark.parametrize(("num_cpus", "yields"), [(2, True), (4, True), (5, False), (64, False)])
def test_ranks_yield_only_where_they_fill_the_cores(num_cpus, yields):
    command = build_launch_command(spec(distributed_backend="mpi", process_count_per_node=2, num_cpus=num_cpus))
    assert ("mpi_yield_when_idle" in command.argv) is yields


@pytest.mark.parametrize("backend", ["mpi", "gloo"])
@pytest.mark.parametrize(("num_cpus", "processes", "threads"), [(8, 2, "4"), (2, 2, "1"), (1, 4, "1")])
def test_threads_are_shared_among_local_ranks(num_cpus, processes, threads, backend):
    shape = {"num_cpus": num_cpus, "process_count_per_node": processes}
    command = build_launch_command(spec(distributed_backend=backend, **shape))
    assert command.env["OMP_NUM_THREADS"] == threads


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_users_thread_count_is_kept(backend):
    command = build_launch_command(spec(distributed_backend=backend, environment={"OMP_NUM_THREADS": "3"}))
    assert command.env["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("backend", BACKENDS)
def test_gpus_are_hidden_unless_asked_for(backend):
    assert build_launch_command(spec(distributed_backend=backend)).env["CUDA_VISIBLE_DEVICES"] == ""
    asked = spec(distributed_backend=backend, use_gpu=True, environment={"CUDA_VISIBLE_DEVICES": "2,3"})
    assert build_launch_command(asked).env["CUDA_VISIBLE_DEVICES"] == "2,3"


@pytest.mark.parametrize(
    ("argument", "given"), [(":", "\\:"), ("\\:", "\\\\:"), ("a:b", "a:b"), ("::", "::"), ("\\", "\\"), ("", "")]
)
def test_an_argument_that_mpirun_would_split_at_is_shielded(argument, given):
    command = build_launch_command(spec(distributed_backend="mpi", arguments=(argument,)))
    assert command.argv[-1] == given
    assert unshielded(given) == argument
