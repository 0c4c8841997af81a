"""What a killed process left in the temporary directory goes; what anybody still uses stays."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from trainyard.tasks.runtime.scratch import LEAST_AGE_S, remove_abandoned, scratch_prefix

OWNER = """
import sys, tempfile, time
from trainyard.tasks.runtime.scratch import scratch_prefix
with tempfile.TemporaryDirectory(prefix=scratch_prefix("export")) as scratch:
    open(scratch + "/model.onnx", "w").close()
    print(scratch, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def make_old(path):
    then = path.stat().st_mtime - LEAST_AGE_S - 1
    os.utime(path, (then, then))


def test_what_a_killed_process_left_is_removed_and_not_before():
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        scratch = Path(owner.stdout.readline().strip())
        make_old(scratch)
        assert remove_abandoned() == 0, "its process lives"
        owner.send_signal(signal.SIGKILL)
    assert remove_abandoned() == 1
    assert not scratch.exists()


def test_what_was_used_just_now_stays():
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        scratch = Path(owner.stdout.readline().strip())
        owner.send_signal(signal.SIGKILL)
    assert remove_abandoned() == 0, "what it had started may still be ending"
    assert remove_abandoned(least_age_s=0.0) == 1
    assert not scratch.exists()


def test_a_process_id_that_was_used_again_is_not_the_owner(temporary):
    mine = scratch_prefix("export")
    kind, what, namespace, pid, started, _ = mine.split("-")
    left = temporary / f"{kind}-{what}-{namespace}-{pid}-{int(started) - 1}-x"
    left.mkdir()
    make_old(left)
    assert remove_abandoned() == 1


@pytest.mark.parametrize(
    "name",
    [
        "trainyard-tests-abcdef",
        "trainyard-export-1-999999999-5-x",  # of another pid namespace
        "trainyard-export-{namespace}-999999999-0-x",  # of a system that does not say when a process began
        "other-export-{namespace}-999999999-5-x",
    ],
)
def test_what_may_be_anybody_elses_stays(temporary, name):
    folder = temporary / name.format(namespace=scratch_prefix("x").split("-")[2])
    folder.mkdir()
    make_old(folder)
    assert remove_abandoned() == 0
    assert folder.exists()


def test_a_link_is_not_followed(temporary):
    (temporary / "precious").mkdir()
    link = temporary / f"trainyard-export-{scratch_prefix('x').split('-')[2]}-999999999-5-x"
    link.symlink_to(temporary / "precious")
    assert remove_abandoned(least_age_s=0.0) == 0
    assert (temporary / "precious").exists()
