"""What a script that never joined is told, and what observing costs those that do not need it."""

import json
import os
import subprocess
import sys

import pytest

ONE_OF_TWO = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture
def run(tmp_path):
    """Run a script as one rank; its exit code, its log, and its failure's type."""

    def run(script, **variables):
        (tmp_path / "ranks").mkdir()
        (tmp_path / "train.py").write_text(script)
        env = {
            **os.environ,
            "TRAINYARD_RANKS_DIR": str(tmp_path / "ranks"),
            "TRAINYARD_METRICS_DIR": str(tmp_path / "records"),
            "TRAINYARD_WORLD_SIZE": variables.get("WORLD_SIZE", "1"),
            **variables,
        }
        command = [sys.executable, "-m", "trainyard.tasks.runtime", "./train.py"]
        code = subprocess.run(command, cwd=tmp_path, env=env, check=False).returncode
        failure = tmp_path / "ranks" / "rank-00000.failure.json"
        error = json.loads(failure.read_text())["error_type"] if failure.exists() else None
        return code, (tmp_path / "ranks" / "rank-00000.log").read_text(), error

    return run


@pytest.mark.parametrize("end", ["", "import sys; sys.exit()", "import sys; sys.exit(0)"])
def test_a_rank_that_never_joined_fails_and_is_told_what_was_looked_for(run, end):
    code, log, error = run(end, **ONE_OF_TWO)
    assert (code, error) == (1, "NeverJoinedError")
    for word in ("hvd.init()", "init_process_group()", "COMM_WORLD", "TRAINYARD_INDEPENDENT_RANKS"):
        assert word in log


def test_a_world_of_one_is_not_the_world_of_all(run):
    script = (
        "import os, torch.distributed as dist\n"
        "address = 'file://' + os.path.abspath('store')\n"
        "dist.init_process_group('gloo', init_method=address, rank=0, world_size=1)\n"
    )
    assert run(script, **ONE_OF_TWO)[2] == "NeverJoinedError"


def test_ranks_may_be_meant_to_work_alone(run):
    assert run("print('fine')", **ONE_OF_TWO, TRAINYARD_INDEPENDENT_RANKS="1") == (0, "fine\n", None)


def test_a_failure_of_the_script_is_its_own(run):
    assert run("raise KeyError('x')", **ONE_OF_TWO)[2] == "KeyError"


def test_one_process_joins_nobody_and_imports_nothing(run):
    script = "import sys; print(sorted({'torch', 'horovod', 'mpi4py', 'numpy', 'hashlib'} & set(sys.modules)))"
    assert run(script) == (0, "[]\n", None)
