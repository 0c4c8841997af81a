"""A training whose pipeline is gone ends, also where the Prefect server is gone as well."""

import os
import signal
import subprocess
import sys

import pytest

# A training's process: its pipeline's file is not there, and its server does not answer.
TRAINING = """
import signal, sys, threading, time, uuid
from trainyard.flows import caller_watch
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.caching.presence import PresenceWatch

caller_watch.PATIENCE_S = 1.0
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
watch = PresenceWatch(Location(sys.argv[1]) / "answers/1/waiting.json")
threading.Thread(target=caller_watch._watch, args=(watch, uuid.uuid4(), threading.Event()), daemon=True).start()
time.sleep(300)
"""


@pytest.mark.parametrize(("kind", "status"), [("ordinary", -signal.SIGTERM), ("deaf", 128 + signal.SIGTERM)])
def test_it_ends_itself_where_nobody_else_can(tmp_path, kind, status):
    gone = {
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
        "PREFECT_CLIENT_MAX_RETRIES": "0",
        "TRAINYARD_LEASE_TTL_S": "1",
    }
    command = [sys.executable, "-c", TRAINING, f"file://{tmp_path}", kind]
    done = subprocess.run(command, env={**os.environ, **gone}, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert "has not been heard of for 1 s" in done.stderr
