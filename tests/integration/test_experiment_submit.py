"""Submitting to a deployment on a server, which no worker takes."""

import os

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate

from trainyard import Experiment, PyTorch


@pytest.fixture
def nameless(monkeypatch):
    """This process has no user name, as under ``docker run --user 1001``."""
    pwd = pytest.importorskip("pwd")
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    unknown = next(uid for uid in range(54_321, 60_000) if uid not in {entry.pw_uid for entry in pwd.getpwall()})
    monkeypatch.setattr(os, "getuid", lambda: unknown)


def test_who_has_no_name_submits_all_the_same(prefect_server, home, linear_project, nameless):
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="nobody-here", type="process"), overwrite=True)
        flow_id = client.create_flow_from_name("training-pipeline")
        client.create_deployment(flow_id=flow_id, name="nobody-here", work_pool_name="nobody-here")
        experiment = Experiment("lines", deployment="training-pipeline/nobody-here")
        run = experiment.submit(PyTorch(source_directory=str(linear_project), entry_script="train.py"))
        assert client.read_flow_run(run.id).state.message == "Submitted by somebody"
