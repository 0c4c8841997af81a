import subprocess
import sys
import time

import pytest

from trainyard.deployments.environment.locks import exclusive

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from trainyard.deployments.environment.commands import CommandLog
from trainyard.deployments.environment.locks import exclusive
with exclusive(Path(sys.argv[1]), on_wait=lambda: print("waits", flush=True)) as lock:
    print("has it", flush=True)
    CommandLog(Path(sys.argv[1] + ".log"), inherited_fds=(lock,)).run(["sleep", sys.argv[2]])
"""


@pytest.fixture
def hold(tmp_path):
    started = []

    def start(seconds):
        argv = [sys.executable, "-c", HOLDER, str(tmp_path / "folder" / "lock"), str(seconds)]
        started.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_waits_for_the_first(hold):
    first = hold(0.5)
    assert first.stdout.readline() == "has it\n"
    second = hold(0)
    assert second.communicate(timeout=20)[0] == "waits\nhas it\n"
    assert first.poll() is not None or first.wait(timeout=1) == 0


def test_a_killed_holder_frees_it_once_its_child_has_ended(hold, tmp_path):
    first = hold(1.5)
    assert first.stdout.readline() == "has it\n"
    time.sleep(0.2)  # its child is started
    first.kill()
    start = time.monotonic()
    waits = []
    with exclusive(tmp_path / "folder" / "lock", on_wait=lambda: waits.append(1)):
        assert time.monotonic() - start > 0.5
    assert waits == [1]


def test_free_again_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), exclusive(tmp_path / "lock", on_wait=pytest.fail):
            raise RuntimeError
