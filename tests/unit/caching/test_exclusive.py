"""Waiting for another process: who it is shows, and it ends at the time limit."""

import contextlib
import os
import subprocess
import sys
import threading

import pytest

from trainyard.tasks.caching import waiting
from trainyard.tasks.caching.exclusive import exclusive
from trainyard.tasks.errors import StageTimeoutError

HOLDER = """
import sys, time
from pathlib import Path
from trainyard.tasks.caching.exclusive import exclusive
with exclusive(Path(sys.argv[1]), "x"):
    print("held", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def held_elsewhere(path):
    """Another process that holds a lock and does nothing; gives it."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            yield holder
        finally:
            holder.kill()


def test_who_hangs_is_named_again_and_again_until_the_time_limit(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(waiting, "TELL_S", 0.2)
    caplog.set_level("INFO")
    with (
        held_elsewhere(tmp_path / "lock") as holder,
        pytest.raises(StageTimeoutError) as raised,
        exclusive(tmp_path / "lock", "the same is made", timeout_s=1.0),
    ):
        pytest.fail("it is held by another process")
    name = f"process {holder.pid} on {os.uname().nodename}, since 20"
    assert "more than 1 seconds" in str(raised.value)
    assert name in str(raised.value)
    assert f"kill {holder.pid}" in str(raised.value)
    first, *later = [message for message in caplog.messages if message.startswith("Waiting")]
    assert first.startswith("Waiting: the same is made. It is held by process")
    assert later
    assert all(name in message for message in (first, *later))


def test_what_was_waited_for_goes_on_when_the_holder_is_killed(tmp_path):
    with held_elsewhere(tmp_path / "lock") as holder:
        threading.Timer(0.5, holder.kill).start()
        with exclusive(tmp_path / "lock", "x", timeout_s=60):
            assert holder.wait(timeout=10) != 0


def test_no_line_a_poll_is_logged(tmp_path, caplog):
    caplog.set_level("INFO")
    with (
        held_elsewhere(tmp_path / "lock"),
        contextlib.suppress(StageTimeoutError),
        exclusive(tmp_path / "lock", "x", timeout_s=1.0),
    ):
        pytest.fail("it is held by another process")
    assert len([message for message in caplog.messages if message.startswith("Waiting")]) == 1


def test_a_holder_that_has_ended_is_said_to_have(tmp_path):
    """Its lock is that of what it started and has not ended yet."""
    with exclusive(tmp_path / "lock", "x") as descriptor:
        inherited = os.dup(descriptor)
    try:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        text = (tmp_path / "lock").read_text().replace(f'"pid": {os.getpid()}', f'"pid": {gone.pid}')
        (tmp_path / "lock").write_text(text)
        with (
            pytest.raises(StageTimeoutError, match=rf"process {gone.pid} on .*; that one has ended"),
            exclusive(tmp_path / "lock", "x", timeout_s=0.1),
        ):
            pytest.fail("it is still held")
    finally:
        os.close(inherited)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"pid": "x", "host": 1, "since": null}', b"\xff\xfe"])
def test_a_lock_that_does_not_say_who_holds_it(tmp_path, content):
    with exclusive(tmp_path / "lock", "x"):
        (tmp_path / "lock").write_bytes(content)
        with (
            pytest.raises(StageTimeoutError, match=r"this stage: the same\. Run again"),
            exclusive(tmp_path / "lock", "the same", timeout_s=0.05),
        ):
            pytest.fail("it is held")
