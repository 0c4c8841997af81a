import os
import subprocess
import sys
import threading

import pytest

from tests.processes import wait_for
from trainyard.deployments.environment.locks import exclusive

HOLDER = """
import sys
from pathlib import Path
from trainyard.deployments.environment.commands import CommandLog
from trainyard.deployments.environment.locks import exclusive
with exclusive(Path(sys.argv[1]), on_wait=lambda: print("waits", flush=True)) as lock:
    print("has it", flush=True)
    CommandLog(Path(sys.argv[1] + ".log"), inherited_fds=(lock,)).run(["sh", "-c", sys.argv[2]])
"""


class Holder:
    """A process that holds the lock while its child waits to be let go."""

    def __init__(self, folder):
        self.lock, self.log, self._gate = folder / "lock", folder / "lock.log", folder / "gate"
        folder.mkdir()
        os.mkfifo(self._gate)
        self.process = start(self.lock, f"echo started; read line < '{self._gate}'")

    def has_a_child(self):
        return self.log.exists() and "started" in self.log.read_text().splitlines()

    def let_go(self):
        os.close(os.open(self._gate, os.O_RDWR))  # opens at once, and ends the waiting of who reads


def start(lock, shell):
    return subprocess.Popen([sys.executable, "-c", HOLDER, str(lock), shell], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def first(tmp_path):
    holder = Holder(tmp_path / "folder")
    try:
        assert holder.process.stdout.readline() == "has it\n"
        assert wait_for(holder.has_a_child, 60)
        yield holder
    finally:
        holder.let_go()
        holder.process.kill()
        holder.process.communicate()


def test_the_second_waits_for_the_first(first):
    second = start(first.lock, "true")
    try:
        assert second.stdout.readline() == "waits\n"
        assert first.process.poll() is None
        first.let_go()
        assert second.communicate(timeout=60)[0] == "has it\n"
        assert first.process.wait(timeout=60) == 0
    finally:
        second.kill()
        second.communicate()


def test_a_killed_holder_frees_it_once_its_child_has_ended(first):
    first.process.kill()
    first.process.wait()
    waits, entered = threading.Event(), threading.Event()

    def enter():
        with exclusive(first.lock, on_wait=waits.set):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    try:
        assert waits.wait(60)
        assert not entered.wait(0.2)
    finally:
        first.let_go()
        thread.join(60)
    assert entered.is_set()


def test_free_again_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), exclusive(tmp_path / "lock", on_wait=pytest.fail):
            raise RuntimeError
