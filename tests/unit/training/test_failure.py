import json

import pytest

from trainyard.tasks import errors
from trainyard.tasks.runtime.joining import NeverJoinedError
from trainyard.tasks.runtime.world import WorldMismatchError
from trainyard.tasks.training.failure import describe_failure
from trainyard.tasks.training.process import ExitReport

ENDED_WELL = ExitReport(0, "exited", 1.0, 0)


@pytest.fixture
def run_directory(tmp_path):
    (tmp_path / "ranks").mkdir()
    (tmp_path / "launcher.log").write_text("mpirun says why\n")
    return tmp_path


def fail(run_directory, rank, *, error, exit_code=1, time=1.0, log=""):
    report = {
        "rank": rank,
        "host": "node1",
        "exit_code": exit_code,
        "error_type": type(error).__name__,
        "error_bases": [base.__name__ for base in type(error).__mro__],
        "message": str(error),
        "traceback": f"Traceback (most recent call last):\n  …\n{type(error).__name__}: {error}\n",
        "time": time,
    }
    (run_directory / "ranks" / f"rank-{rank:05d}.failure.json").write_text(json.dumps(report))
    (run_directory / "ranks" / f"rank-{rank:05d}.log").write_text(log)


def test_a_run_that_ended_well_is_no_error(run_directory):
    assert describe_failure(ENDED_WELL, run_directory, None) is None


def test_the_first_rank_to_fail_is_named(run_directory):
    fail(run_directory, 0, time=2.0, error=RuntimeError("my neighbour left"))
    fail(run_directory, 1, time=1.0, error=KeyError("learning_rate"))
    error = describe_failure(ExitReport(1, "exited", 1.0, 0), run_directory, None)
    assert isinstance(error, errors.ScriptDefectError)
    assert (error.rank, error.exit_code) == (1, 1)
    assert "Rank 1 on node1 failed first (1 more failed after it): KeyError: 'learning_rate'" in str(error)
    assert "Traceback" in str(error)


@pytest.mark.parametrize(
    ("error", "exit_code", "expected"),
    [
        (ImportError("no module"), 1, errors.ScriptDefectError),
        (ModuleNotFoundError("no module"), 1, errors.ScriptDefectError),
        (SyntaxError("bad"), 1, errors.ScriptDefectError),
        (SystemExit(2), 2, errors.ScriptDefectError),
        (SystemExit(3), 3, errors.TrainingFailedError),
        (ConnectionError("gone"), 1, errors.TrainingFailedError),
        (RuntimeError("NCCL"), 1, errors.TrainingFailedError),
        (MemoryError(), 1, errors.TrainingFailedError),
    ],
)
def test_what_another_attempt_can_mend_is_transient(run_directory, error, exit_code, expected):
    fail(run_directory, 0, error=error, exit_code=exit_code)
    assert type(describe_failure(ExitReport(exit_code, "exited", 1.0, 0), run_directory, None)) is expected


def test_an_exit_status_comes_with_the_last_lines_of_the_log(run_directory):
    fail(run_directory, 0, error=SystemExit(2), exit_code=2, log="usage: train.py\nunrecognized arguments: --x\n")
    message = str(describe_failure(ExitReport(2, "exited", 1.0, 0), run_directory, None))
    assert "unrecognized arguments: --x" in message


def test_a_deadline_says_how_to_go_on(run_directory):
    error = describe_failure(ExitReport(-15, "deadline", 60.0, 0), run_directory, 60.0)
    assert isinstance(error, errors.TrainingTimeoutError)
    assert "within 60 seconds" in str(error)
    assert "timeout_s" in str(error)


def keeper_says(run_directory, rank, returncode, *, time=1.0, stopped=False, oom_kills=0, log="last words\n"):
    record = {"rank": rank, "host": "node1", "returncode": returncode, "stopped": stopped, "time": time}
    facts = {"oom_kills": oom_kills, "leftovers": 0}
    (run_directory / "ranks" / f"rank-{rank:05d}.exit.json").write_text(json.dumps({**record, **facts}))
    (run_directory / "ranks" / f"rank-{rank:05d}.log").write_text(log)


@pytest.mark.parametrize(
    ("returncode", "oom_kills", "words"),
    [
        (-9, 0, ["SIGKILL", "no kill for want of memory"]),
        (-9, 2, ["SIGKILL", "Memory ran out", "killed 2 process(es)"]),
        (-9, None, ["SIGKILL", "is not known here"]),
        (-11, 0, ["SIGSEGV", "segmentation fault"]),
        (-6, 0, ["SIGABRT"]),
        (-34, 0, ["SIGRTMIN"]),
        (-35, 0, ["signal 35"]),
        (3, 0, ["exit status 3", "without a Python exception"]),
    ],
)
def test_a_rank_that_could_not_speak_is_spoken_for_by_its_keeper(run_directory, returncode, oom_kills, words):
    keeper_says(run_directory, 0, -15, stopped=True, time=2.0)
    keeper_says(run_directory, 1, returncode, oom_kills=oom_kills)
    error = describe_failure(ExitReport(1, "exited", 1.0, 0), run_directory, None)
    assert isinstance(error, errors.TrainingFailedError)
    assert (error.rank, error.exit_code) == (1, returncode)
    assert "Rank 1 on node1 failed first: " in str(error)
    assert "last words" in str(error)
    assert not [word for word in words if word not in str(error)]


def test_a_killed_rank_comes_before_the_peers_that_complain_of_it(run_directory):
    fail(run_directory, 0, time=10.0, error=RuntimeError("connection closed by peer"))
    keeper_says(run_directory, 1, -9, time=10.5)
    error = describe_failure(ExitReport(1, "exited", 1.0, 0), run_directory, None)
    assert "Rank 1 on node1 failed first (1 more failed after it)" in str(error)


def test_a_rank_that_failed_long_before_a_kill_is_the_first(run_directory):
    fail(run_directory, 0, time=10.0, error=RuntimeError("CUDA error"))
    keeper_says(run_directory, 1, -9, time=20.0)
    assert "Rank 0 on node1 failed first" in str(describe_failure(ENDED_WELL, run_directory, None))


def test_what_a_rank_said_counts_more_than_how_its_process_ended(run_directory):
    keeper_says(run_directory, 0, 1, time=1.5)
    fail(run_directory, 0, time=1.0, error=ConnectionError("gone"))
    error = describe_failure(ExitReport(1, "exited", 1.0, 0), run_directory, None)
    assert "failed first: ConnectionError: gone" in str(error)


def test_ranks_that_were_asked_to_stop_have_not_failed(run_directory):
    keeper_says(run_directory, 0, -15, stopped=True)
    assert describe_failure(ENDED_WELL, run_directory, None) is None


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (ExitReport(-9, "exited", 1.0, 0), "SIGKILL; the system ends processes so when memory runs out"),
        (ExitReport(-11, "exited", 1.0, 0), "SIGSEGV"),
        (ExitReport(137, "exited", 1.0, 0), "exit status 137, which stands for SIGKILL."),
        (ExitReport(213, "exited", 1.0, 0), "exit status 213."),
        (ExitReport(7, "exited", 1.0, 0), "exit status 7"),
        (ExitReport(127, "not-started", 0.0, 0, "No such file: mpirun"), "No such file: mpirun"),
        (ExitReport(1, "supervisor-lost", 0.0, 0), "ended from outside"),
    ],
)
def test_silent_ends_are_told_apart(run_directory, report, words):
    error = describe_failure(report, run_directory, None)
    assert isinstance(error, errors.TrainingFailedError)
    assert words in str(error)
    assert "mpirun says why" in str(error)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (WorldMismatchError("expected 2 ranks, found 1"), errors.WorldSizeError),
        (NeverJoinedError("the script never joined the others"), errors.NeverJoinedError),
    ],
)
def test_a_world_that_was_not_asked_for_is_an_error_of_its_own(run_directory, raised, expected):
    fail(run_directory, 0, error=raised)
    error = describe_failure(ExitReport(1, "exited", 1.0, 0), run_directory, None)
    assert type(error) is expected
    assert isinstance(error, errors.PermanentError)
    assert str(raised) in str(error)
    assert "Traceback" not in str(error)


LEFT_OUT = ["data/", "weights.bin"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError(2, "No such file or directory", "./data/train.bin"), True),
        (ModuleNotFoundError("No module named 'data'"), True),
        (RuntimeError("cannot read weights.bin"), True),
        (RuntimeError("out of luck"), False),
    ],
)
def test_what_ignore_files_kept_out_is_named_where_it_may_be_missed(run_directory, error, told):
    fail(run_directory, 0, error=error)
    report = ExitReport(1, "exited", 1.0, 0)
    assert ("name: data/, weights.bin." in str(describe_failure(report, run_directory, None, LEFT_OUT))) is told
    assert ".gitignore" not in str(describe_failure(report, run_directory, None))


def test_a_rank_that_wrote_its_traceback_is_not_said_to_have_written_nothing(run_directory):
    fail(run_directory, 0, error=RuntimeError("out of luck"))
    message = str(describe_failure(ExitReport(1, "exited", 1.0, 0), run_directory, None))
    assert "out of luck" in message
    assert "had written nothing" not in message
