"""What ``trainyard up`` and ``trainyard down`` do with processes, records and a server's runs; processes are real."""

import contextlib
import http.server
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Running

from trainyard.deployments.local import down
from trainyard.deployments.local.background import recorded, start, stop
from trainyard.deployments.local.down import bring_down
from trainyard.deployments.local.server import one_at_a_time, services_folder
from trainyard.tasks.settings import Settings

NOBODY = "http://127.0.0.1:9/api"
SLEEP = ["sleep", "600"]


@pytest.fixture
def folder(home):
    """Of the records; what is still recorded at the end is ended."""
    folder = services_folder(home)
    yield folder
    for path in folder.glob("*.json"):
        if (process := recorded(folder, path.stem)) is not None:
            stop(process, 1)


def begin(folder, name, argv=SLEEP, **options):
    return start(name, argv, env=os.environ, folder=folder, **options)


@contextlib.contextmanager
def web_server(status=200):
    """Answers every question, as a healthy server does; gives an API address."""

    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


@flow
def idle():
    pass


@pytest.fixture
def run_of_a_worker(prefect_server):
    """Makes flow runs as a worker has them: of a work pool, and running."""
    pool = f"pool-{uuid4().hex}"
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        deployment = client.create_deployment(client.create_flow(idle), name=pool, work_pool_name=pool)

        def make():
            run = client.create_flow_run_from_deployment(deployment)
            client.set_flow_run_state(run.id, Running(), force=True)
            return run.id

        yield make
        client.delete_work_pool(pool)


def end_when_asked(address, run):
    """What a worker does with a run that is to be cancelled."""
    until = time.monotonic() + 60
    with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client:
        while client.read_flow_run(run).state_type.value != "CANCELLING":
            assert time.monotonic() < until, "nobody asked"
            time.sleep(0.1)
        client.set_flow_run_state(run, Cancelled(), force=True)


def test_down_cancels_the_runs_of_its_own_server_where_another_is_configured(
    folder, prefect_server, run_of_a_worker, monkeypatch
):
    """And says of each run what became of it."""
    monkeypatch.setattr(down, "CANCEL_WAIT_S", 15)
    begin(folder, "server", address=prefect_server)
    begin(folder, "worker-cpu")
    obedient, stubborn = run_of_a_worker(), run_of_a_worker()
    said = []
    with ThreadPoolExecutor() as pool, temporary_settings({PREFECT_API_URL: NOBODY}):
        asked = pool.submit(end_when_asked, prefect_server, obedient)
        assert bring_down(Settings(), said.append) == 2
        asked.result()
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(stubborn).state_type.value == "CANCELLING"
        client.set_flow_run_state(stubborn, Cancelled(), force=True)
    assert said[:2] == ["1 run: cancelled", "1 run: did not end within 15 s, and end with the workers"]
    assert said[2:] == ["worker-cpu: ended", "server: ended"]


def test_down_leaves_the_record_of_a_server_that_was_started_meanwhile(folder, home):
    """One that starts a server finds that the old one has ended, before down has removed its record."""
    first = begin(folder, "server", address=NOBODY)
    said = []
    with ThreadPoolExecutor() as pool:
        with one_at_a_time(folder, "starting"):
            downing = pool.submit(bring_down, Settings(), said.append)
            assert wait_for_lock(folder / "starting.lock")
            assert first.alive, "who starts a server waits for this one; it may not be ended meanwhile"
            stop(first, 1)
            second = begin(folder, "server", address=NOBODY)
        downing.result()
    assert recorded(folder, "server") == second


def wait_for_lock(path, seconds=30):
    """Until another thread of this process waits for a lock (flock: a line of /proc/locks that begins with an arrow)."""
    until = time.monotonic() + seconds
    inode = path.stat().st_ino
    while time.monotonic() < until:
        with open("/proc/locks") as locks:
            if any("->" in line and f":{inode} " in line for line in locks):
                return True
        time.sleep(0.05)
    return False


def test_a_process_forgets_no_record_but_its_own(folder):
    first = begin(folder, "server")
    stop(first, 1)
    second = begin(folder, "server")
    first.forget(folder)
    assert recorded(folder, "server") == second
    second.forget(folder)
    assert not list(folder.glob("*.json"))
    stop(second, 1)
