"""Addresses of Prefect servers: told apart, and shown without passwords."""

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from trainyard.deployments.deploy import command
from trainyard.deployments.doctor.probing import Answer
from trainyard.deployments.doctor.services import check_prefect
from trainyard.deployments.local import up
from trainyard.deployments.local.background import start, stop
from trainyard.deployments.local.connection import Connection, find_server, is_same_server
from trainyard.deployments.local.server import services_folder
from trainyard.deployments.local.up import Consent, bring_up
from trainyard.tasks.settings import Settings

OWN = "http://127.0.0.1:4200/api"
WITH_PASSWORD = "https://me:secret@prefect.example.com/api"


@pytest.mark.parametrize("other", [OWN, f"{OWN}/", "http://localhost:4200/api", "http://LOCALHOST:4200/api/"])
def test_one_server_has_several_addresses(other):
    assert is_same_server(other, OWN)


@pytest.mark.parametrize(
    "other", ["http://127.0.0.1:4201/api", "http://10.0.0.1:4200/api", "http://127.0.0.1:42OO/api"]
)
def test_another_server_has_none_of_them(other):
    assert not is_same_server(other, OWN)
    assert not is_same_server(other, None)


def test_a_port_may_be_left_out():
    assert is_same_server("https://prefect.example.com/api", "https://prefect.example.com:443/api")


def test_the_own_server_is_known_by_any_of_its_addresses(home):
    server = start("server", ["sleep", "600"], env={}, folder=services_folder(home), address=OWN)
    try:
        with temporary_settings({PREFECT_API_URL: "http://localhost:4200/api/"}):
            assert find_server(Settings()).is_local
            up._refuse_another_server(Settings(), Consent(confirm=lambda question: False))
    finally:
        stop(server, 1)


def test_a_password_in_the_address_is_shown_nowhere(home, monkeypatch, capsys):
    connection = Connection(WITH_PASSWORD, is_local=False)
    shown = [connection.shown, connection.ui_address]
    for problem in ("", f"{WITH_PASSWORD} is far away"):
        shown.append(check_prefect(Answer({"version": "3", "api_url": WITH_PASSWORD, "problem": problem})).found)
    monkeypatch.setattr(up, "deploy", lambda *arguments, **options: True)
    monkeypatch.setattr(up, "ensure_workers", lambda *arguments: [])
    with temporary_settings({PREFECT_API_URL: WITH_PASSWORD}):
        bring_up(Settings(), shown.append, Consent(confirm=lambda question: False, on_configured_server=True))
    assert len(shown) == 5
    for line in shown:
        assert "prefect.example.com" in line and "secret" not in line


def test_deploy_shows_no_password_either(prefect_server, home, monkeypatch, capsys, tmp_path):
    for name in ("plan", "wanted_resources"):
        monkeypatch.setattr(command, name, lambda *arguments: [])
    with temporary_settings({PREFECT_API_URL: prefect_server.replace("//", "//me:secret@")}):
        options = command.Options(project=tmp_path)
        assert command.deploy(
            Settings(), options, yes=True, dry_run=False, confirm=lambda question: False, unwanted="ignore"
        )
    said = capsys.readouterr().out
    assert "up to date" in said and "****@" in said and "secret" not in said
