"""What a person is told where the Prefect server cannot be asked; no server is there."""

import os
import subprocess
import sys

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from trainyard import PyTorch
from trainyard.deployments.doctor.probing import ask
from trainyard.flows.prefect_errors import prefect_errors
from trainyard.flows.work_pools import pool_problems
from trainyard.tasks.blocks import load_datastore, load_hosts
from trainyard.tasks.errors import PrefectUnavailableError, StorageUnavailableError

MISTYPED = "http://localhost:42OO/api"
NOBODY = "http://127.0.0.1:9/api"


@pytest.fixture
def mistyped():
    with temporary_settings({PREFECT_API_URL: MISTYPED}):
        yield


def test_a_mistyped_address_is_named_as_that(mistyped):
    with pytest.raises(PrefectUnavailableError, match=r"PREFECT_API_URL.*'42OO'.*correct it"), prefect_errors():
        get_client(sync_client=True)
    [problem] = pool_problems("gpu", PyTorch(source_directory=".", entry_script="train.py"))
    assert "check PREFECT_API_URL" in problem


@pytest.mark.parametrize(
    ("load", "error"), [(load_datastore, StorageUnavailableError), (load_hosts, PrefectUnavailableError)]
)
def test_a_block_says_that_the_address_is_mistyped(mistyped, load, error):
    with pytest.raises(error, match=r"InvalidURL.*check PREFECT_API_URL"):
        load("somebodys")


def test_the_doctor_takes_a_mistyped_address_for_no_broken_prefect(monkeypatch):
    monkeypatch.setitem(os.environ, "PREFECT_API_URL", MISTYPED)
    answer = ask("prefect_probe")
    assert (answer.failure, "42OO" in answer.facts["problem"]) == ("", True)


def test_a_command_ends_with_one_line_where_the_address_is_mistyped(tmp_path):
    env = {**os.environ, "PREFECT_API_URL": MISTYPED, "TRAINYARD_HOME": str(tmp_path)}
    for arguments in (["deploy", "--yes"], ["up", "--yes", "--on-configured-server"]):
        command = [sys.executable, "-m", "trainyard", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
        assert "correct it, or unset it" in done.stderr


def test_a_configured_server_that_does_not_answer_is_not_one_that_up_starts():
    """``up`` refuses while ``PREFECT_API_URL`` names that server."""
    from prefect import flow

    @flow
    def nothing():
        pass

    settings = {PREFECT_API_URL: NOBODY, PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(settings), pytest.raises(PrefectUnavailableError) as refused, prefect_errors():
        nothing()
    assert "unset it and run 'trainyard up'" in str(refused.value)
    assert "Start it" not in str(refused.value)
