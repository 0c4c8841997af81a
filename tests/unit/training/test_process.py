"""Real processes, because what matters is what the kernel does: who is left, and why a command ended."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.processes import marked, wait_for
from trainyard.tasks.training.launchers.command import LaunchCommand
from trainyard.tasks.training.process import run_command

MARK = "trainyard-test-process"


def command(code, *arguments, timeout_s=None, cwd="/"):
    return LaunchCommand(
        argv=(sys.executable, "-c", code, *arguments),
        env=dict(os.environ),
        cwd=Path(cwd),
        timeout_s=timeout_s,
    )


def run(tmp_path, launch, on_tick=lambda: None, grace_s=1.0):
    return run_command(launch, log_path=tmp_path / "launcher.log", grace_s=grace_s, on_tick=on_tick)


# Starts a child that forks itself away into a session of its own, ignores SIGTERM and sleeps.
LEAVES_A_DAEMON = """
import os, subprocess, sys, time
code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
command = [sys.executable, "-c", code, sys.argv[1]]
child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_status_is_reported(tmp_path, code):
    report = run(tmp_path, command(f"import sys; sys.exit({code})"))
    assert (report.reason, report.returncode, report.leftovers) == ("exited", code, 0)


def test_a_signal_is_reported_as_negative(tmp_path):
    report = run(tmp_path, command("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"))
    assert (report.reason, report.returncode) == ("exited", -signal.SIGSEGV)


def test_a_program_that_does_not_exist_is_reported(tmp_path):
    report = run(tmp_path, LaunchCommand(argv=("/no/such/program",), env={}, cwd=Path("/"), timeout_s=None))
    assert report.reason == "not-started"
    assert "/no/such/program" in report.error


def test_output_goes_to_the_log(tmp_path):
    run(tmp_path, command("import sys; print('out'); print('err', file=sys.stderr)"))
    assert sorted((tmp_path / "launcher.log").read_text().split()) == ["err", "out"]


def test_scratch_variables_name_a_directory_that_ends_with_the_command(tmp_path):
    code = "import os, pathlib; pathlib.Path(os.environ['HERE'], 'made').touch(); print(os.environ['HERE'])"
    report = run(tmp_path, dataclasses.replace(command(code), scratch_variables=("HERE",)))
    said = (tmp_path / "launcher.log").read_text()
    assert report.returncode == 0, said
    assert not Path(said.strip()).exists()


def test_the_deadline_ends_it(tmp_path):
    report = run(tmp_path, command("import time; time.sleep(600)", timeout_s=0.5))
    assert report.reason == "deadline"
    assert report.returncode != 0


def test_what_a_command_leaves_behind_is_ended(tmp_path):
    mark = f"{MARK}-{tmp_path.name}-left"
    report = run(tmp_path, command(LEAVES_A_DAEMON, mark, "0"))
    assert (report.reason, report.returncode, report.leftovers) == ("exited", 0, 1)
    assert marked(mark) == []


def test_an_exception_here_ends_everything(tmp_path):
    mark = f"{MARK}-{tmp_path.name}-raise"

    def raise_once_it_runs():
        if marked(mark):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, command(LEAVES_A_DAEMON, mark, "600"), on_tick=raise_once_it_runs)
    assert marked(mark) == []


CALLER = """
import sys
from pathlib import Path
from trainyard.tasks.training.launchers.command import LaunchCommand
from trainyard.tasks.training.process import run_command
command = LaunchCommand(argv=(sys.executable, "-c", sys.argv[2], sys.argv[3], "600"), env={}, cwd=Path("/"),
                        timeout_s=None)
run_command(command, log_path=Path(sys.argv[1]) / "launcher.log", grace_s=1.0, on_tick=lambda: None)
"""


@pytest.mark.parametrize("victim", ["caller", "supervisor"])
def test_kill_9_leaves_nothing(tmp_path, victim):
    mark = f"{MARK}-{tmp_path.name}-{victim}"
    arguments = [
        str(tmp_path),
        LEAVES_A_DAEMON if victim == "caller" else "import time; time.sleep(600)",
        mark,
    ]
    caller = subprocess.Popen([sys.executable, "-c", CALLER, *arguments])
    try:
        expected = 3 if victim == "caller" else 2  # the caller, the command, and the daemon where it starts one
        assert wait_for(lambda: len(marked(mark)) == expected)
        target = caller.pid if victim == "caller" else psutil.Process(caller.pid).children()[0].pid
        os.kill(target, signal.SIGKILL)
        caller.wait(timeout=20)
        assert wait_for(lambda: marked(mark) == [])
    finally:
        caller.kill()
        caller.wait()


HOLDER = """
import sys
from pathlib import Path
from trainyard.tasks.caching.exclusive import exclusive
from trainyard.tasks.training.launchers.command import LaunchCommand
from trainyard.tasks.training.process import run_command
folder = Path(sys.argv[1])
command = LaunchCommand(argv=(sys.executable, "-c", sys.argv[2], sys.argv[3]), env={}, cwd=Path("/"), timeout_s=None)
with exclusive(folder / "lock", "x") as lock:
    run_command(command, log_path=folder / "launcher.log", grace_s=2.0, on_tick=lambda: None, held=lock)
"""
TAKES_ITS_TIME_TO_STOP = """
import pathlib, signal, sys, time
signal.signal(15, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)
"""


def test_what_is_held_is_free_only_when_the_command_of_a_killed_caller_has_ended(tmp_path):
    """Else another attempt would begin beside ranks that are still being stopped."""
    mark = str(tmp_path / f"{MARK}-held")  # a file, there once SIGTERM is ignored
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path), TAKES_ITS_TIME_TO_STOP, mark])
    try:
        assert wait_for(Path(mark).exists, 60)
        assert len(marked(mark)) == 2
    finally:
        holder.kill()
        holder.wait()
    assert marked(mark) != []
    from trainyard.tasks.caching.exclusive import exclusive

    with exclusive(tmp_path / "lock", "x"):
        assert marked(mark) == []
