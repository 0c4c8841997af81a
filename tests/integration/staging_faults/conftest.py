"""What tests of faults share: the server, both transports, and little patience."""

import uuid
from importlib.util import find_spec

import pytest

from tests.integration.fault_server import run_fault_server
from trainyard.tasks.staging import access

TRANSPORTS = ("obstore", "s3fs")


@pytest.fixture(scope="package")
def server():
    with run_fault_server() as server:
        yield server


@pytest.fixture(params=TRANSPORTS)
def transport(request, monkeypatch):
    if request.param == "obstore" and not find_spec("obstore"):
        pytest.fail("obstore is not installed: the locked environment has it (make setup)")
    monkeypatch.setenv("TRAINYARD_S3_TRANSPORT", "auto" if request.param == "obstore" else "s3fs")
    return request.param


@pytest.fixture(autouse=True)
def impatient(server, transport, monkeypatch):
    """Credentials, a client of the test's own, and time-outs for which a stalled answer need not be waited for.

    Whatever a test does, every read of it must have said which version it wants.
    """
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "fault-server-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fault-server-secret")
    opened = access._options_and_settings
    impatient = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 2, "user_agent_extra": uuid.uuid4().hex}}

    def open_impatiently(datastore):
        options, settings = opened(datastore)
        return {**options, **impatient}, settings

    monkeypatch.setattr(access, "_options_and_settings", open_impatiently)
    server.buckets.clear()
    server.faults.clear()
    server.reads.clear()
    server.read_conditions.clear()
    server.on_read = lambda key, nth: None
    server.on_page = lambda nth, page: page
    server.enforce_if_match, server.range_status = True, 206
    server.weak_etags, server.moved = False, False
    yield
    assert all(server.read_conditions), f"{server.read_conditions.count('')} reads without If-Match"


@pytest.fixture
def bucket_name():
    return f"bucket-{uuid.uuid4().hex[:8]}"
