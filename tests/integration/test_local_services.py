"""What ``trainyard up`` and ``trainyard down`` do with processes, records and a server's runs; processes are real."""

import contextlib
import fcntl
import http.server
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Running

from trainyard.deployments.local import down
from trainyard.deployments.local.background import recorded, start, stop
from trainyard.deployments.local.connection import Connection
from trainyard.deployments.local.down import bring_down
from trainyard.deployments.local.server import (
    START_TIMEOUT_S,
    _database_lock,
    _listener,
    _start,
    one_at_a_time,
    services_folder,
)
from trainyard.deployments.local.workers import ensure_workers, worker_name
from trainyard.flows.work_pools import cancel_active_runs
from trainyard.tasks.errors import InvalidInputError, PrefectUnavailableError
from trainyard.tasks.settings import Settings

NOBODY = "http://127.0.0.1:9/api"
SLEEP = ["sleep", "600"]
BEGUN = []


@pytest.fixture
def folder(home):
    """Of the records; what was begun, or is still recorded, is ended at the end."""
    folder = services_folder(home)
    yield folder
    while BEGUN:
        stop(BEGUN.pop(), 1)
    for path in folder.glob("*.json"):
        if (process := recorded(folder, path.stem)) is not None:
            stop(process, 1)


def begin(folder, name, argv=SLEEP, **options):
    BEGUN.append(start(name, argv, env=os.environ, folder=folder, **options))
    return BEGUN[-1]


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
def pool(prefect_server):
    """A work pool of the test's own."""
    name = f"pool-{uuid4().hex}"
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        yield name
        client.delete_work_pool(name)


@pytest.fixture
def run_of_a_worker(pool):
    """Makes flow runs as a worker has them: of a work pool, and running. Other tests' runs are none any more."""
    with get_client(sync_client=True) as client:
        for left in cancel_active_runs():
            client.set_flow_run_state(left, Cancelled(), force=True)
        deployment = client.create_deployment(client.create_flow(idle), name=pool, work_pool_name=pool)

        def make():
            run = client.create_flow_run_from_deployment(deployment)
            client.set_flow_run_state(run.id, Running(), force=True)
            return run.id

        yield make


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
    with ThreadPoolExecutor() as threads, temporary_settings({PREFECT_API_URL: NOBODY}):
        asked = threads.submit(end_when_asked, prefect_server, obedient)
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
    with ThreadPoolExecutor() as threads:
        with one_at_a_time(folder, "starting"):
            downing = threads.submit(bring_down, Settings(), said.append)
            assert wait_for_lock(folder / "starting.lock")
            assert first.alive, "who starts a server waits for this one; it may not be ended meanwhile"
            stop(first, 1)
            second = begin(folder, "server", address=NOBODY)
        downing.result()
    assert recorded(folder, "server") == second


def wait_for_lock(path, seconds=30):
    """Until somebody waits for a lock: then /proc/locks has a line with an arrow (proc_locks(5))."""
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


def test_a_worker_of_a_server_that_lives_stays_and_is_named(folder, prefect_server, home, pool):
    with web_server() as other:
        worker = begin(folder, f"worker-{pool}", address=other.replace("//", "//me:secret@"))
        with pytest.raises(InvalidInputError, match=other.partition("//")[2]) as refused:
            ensure_workers([pool], Connection(prefect_server, is_local=True), home)
    assert "'trainyard down'" in str(refused.value) and "secret" not in str(refused.value)
    assert worker.alive


def test_a_worker_of_a_server_elsewhere_that_does_not_answer_stays_too(folder, prefect_server, home, pool):
    """It comes back, and the run that the worker is at goes on."""
    worker = begin(folder, f"worker-{pool}", address="http://192.0.2.1:4200/api")
    with pytest.raises(InvalidInputError, match=r"192\.0\.2\.1"):
        ensure_workers([pool], Connection(prefect_server, is_local=True), home)
    assert worker.alive


def test_a_worker_is_the_one_that_runs_and_works_for_this_server(folder, prefect_server, home, pool, monkeypatch):
    """Not one of an earlier server; and not the memory of one that was killed, whom the server calls online."""
    here = Connection(prefect_server, is_local=True)
    left_over = begin(folder, f"worker-{pool}", address=NOBODY)
    [worker] = ensure_workers([pool], here, home)
    assert not left_over.alive and worker.pid != left_over.pid
    same_place = Connection(f"{prefect_server.replace('127.0.0.1', 'localhost')}/", is_local=True)
    assert ensure_workers([pool], same_place, home) == [worker]

    stop(worker, 0)
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "many")  # a worker with this setting ends at once
    with get_client(sync_client=True) as client:
        [known] = client.read_workers_for_work_pool(pool)
        assert (known.name, known.status.value) == (worker_name(pool), "ONLINE")
    with pytest.raises(PrefectUnavailableError, match="ended at once"):
        ensure_workers([pool], Connection(prefect_server, is_local=False), home)


def test_a_port_is_had_from_the_moment_that_it_was_found_free():
    """Two sockets may be bound to one port until one listens; and who has ended gives it back."""
    with _listener(0) as first:
        port = first.getsockname()[1]
        with _listener(port) as second:
            assert second.getsockname()[1] != port
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
    with _listener(port) as again:
        assert again.getsockname()[1] == port


def test_the_server_answers_on_the_socket_that_it_was_given(home, prefect_home):
    """Who asks while it starts waits, and gets its answer."""
    prefect_home(home / "prefect")
    server = _start(home, wanted_port=0)
    try:
        with pytest.raises(PrefectUnavailableError, match="Another Prefect server"):
            _start(home, wanted_port=0)
        assert httpx.get(f"{server.address}/health", timeout=START_TIMEOUT_S, trust_env=False).json() is True
        assert recorded(services_folder(home), "server") == server
    finally:
        stop(server, 30)
    assert not server.alive
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", urlsplit(server.address).port)) != 0
    os.close(_database_lock(home / "prefect"))


def recorded_by(host, folder, name, address):
    """As another machine that shares the home would have it; the id is that of a process that lives here, too."""
    replace(begin(folder, name, address=address), host=host).save(folder)
    return folder / f"{name}.json"


def test_what_another_machine_recorded_in_a_shared_home_is_left_alone(folder):
    record = recorded_by("elsewhere", folder, "server", NOBODY)
    said = []
    assert recorded(folder, "server") is None
    assert bring_down(Settings(), said.append) == 0
    assert record.exists()
    assert said == ["server on elsewhere: left alone; 'trainyard down' there ends it"]


def test_a_server_at_work_on_another_machine_is_named_with_it(home):
    (home / "prefect").mkdir(parents=True)
    os.close(_database_lock(home / "prefect"))
    lock = home / "prefect" / "server.lock"
    assert lock.read_text() == socket.gethostname()
    lock.write_text("elsewhere")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(PrefectUnavailableError, match="started on elsewhere"):
            _database_lock(home / "prefect")
    os.close(_database_lock(home / "prefect"))
    assert lock.read_text() == socket.gethostname()


def test_the_record_of_another_machines_worker_is_not_overwritten(folder, prefect_server, home, pool):
    record = recorded_by("elsewhere", folder, f"worker-{pool}", prefect_server)
    with pytest.raises(InvalidInputError, match="on the machine elsewhere"):
        ensure_workers([pool], Connection(prefect_server, is_local=False), home)
    assert "elsewhere" in record.read_text()


def test_a_record_of_a_machine_that_is_gone_does_not_keep_workers_from_starting(folder, prefect_server, home, pool):
    """A container of another name had this home before: it worked for the own server of then, which is gone."""
    recorded_by("elsewhere", folder, f"worker-{pool}", NOBODY)
    [worker] = ensure_workers([pool], Connection(prefect_server, is_local=True), home)
    assert recorded(folder, f"worker-{pool}") == worker
