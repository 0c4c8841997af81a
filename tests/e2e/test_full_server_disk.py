"""A Prefect server whose disk is full: a run says so in one message and ends, whenever that happens."""

import json
import os
import subprocess
import sys

import pytest

from tests.e2e.prefect_servers import prefect_server_on

# Takes all that the server's disk has, its database's write-ahead log included, which has room in itself otherwise.
FILL = """
import contextlib, sqlite3, time
folder = {folder!r}
database = sqlite3.connect(folder + "/prefect/prefect.db", timeout=60)
while database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
    time.sleep(0.1)
database.close()
with open(folder + "/hog", "wb", buffering=0) as hog, contextlib.suppress(OSError):
    while True:
        hog.write(bytes(4096))
"""


@pytest.fixture
def server(small_disk, tmp_path, prefect_home):
    """The API's address of a server that works on the small disk."""
    with prefect_server_on(tmp_path, PREFECT_HOME=str(prefect_home(small_disk / "prefect"))) as address:
        yield address


def test_a_server_without_room_is_one_message(server, small_disk, home, tmp_path):
    """Its disk fills up while a script trains; the second run finds it full."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text(FILL.format(folder=str(small_disk)))
    estimator = {"source_directory": str(project), "entry_script": "train.py"}
    (tmp_path / "pipeline.json").write_text(json.dumps({"estimator": estimator, "export": None}))
    command = [sys.executable, "-m", "trainyard", "run", str(tmp_path / "pipeline.json"), "--json"]
    env = {**os.environ, "PREFECT_API_URL": server, "TRAINYARD_HOME": str(home)}
    for _ in range(2):
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 1, done.stderr
        assert done.stderr.count("PrefectUnavailableError: ") == 1
        assert "the server's log and disk" in done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        assert (small_disk / "hog").exists()
    assert "database or disk is full" in (tmp_path / "server.log").read_text()
