import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.settings import Settings


def test_the_home_may_start_with_a_tilde(monkeypatch):
    monkeypatch.setenv("TRAINYARD_HOME", "~/somewhere")
    assert Settings().home == Path.home() / "somewhere"
    assert Location(Settings().store_url).local_path == Path.home() / "somewhere" / "store"


def test_the_store_lies_in_the_home_whatever_the_home_is_called(monkeypatch, tmp_path):
    monkeypatch.setenv("TRAINYARD_HOME", str(tmp_path / "with space ü"))
    assert Location(Settings().store_url).local_path == tmp_path / "with space ü" / "store"


def test_a_relative_home_is_that_of_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINYARD_HOME", "here")
    assert Settings().home == tmp_path / "here"


def test_the_home_of_nobody_is_refused(monkeypatch):
    monkeypatch.setenv("TRAINYARD_HOME", "~no-such-user/x")
    with pytest.raises(InvalidInputError, match=r"TRAINYARD_HOME=~no-such-user/x: .*knows no such user"):
        Settings()


def test_every_wrong_setting_is_named_by_its_variable(monkeypatch):
    monkeypatch.setenv("TRAINYARD_SERVER_PORT", "abc")
    monkeypatch.setenv("TRAINYARD_LEASE_TTL_S", "0")
    with pytest.raises(InvalidInputError) as refused:
        Settings()
    said = str(refused.value)
    assert "TRAINYARD_SERVER_PORT=abc: Input should be a valid integer" in said
    assert "TRAINYARD_LEASE_TTL_S=0: Input should be greater than or equal to 1" in said
    assert "pydantic" not in said


@pytest.mark.parametrize("url", ["hooks.example.com/hush", "ftp://host/hush", "https:///hush", "https://host:x/hush"])
def test_a_webhook_that_can_never_be_called_is_refused_and_not_shown(monkeypatch, url):
    monkeypatch.setenv("TRAINYARD_FAILURE_WEBHOOK_URL", url)
    with pytest.raises(
        InvalidInputError, match=r"TRAINYARD_FAILURE_WEBHOOK_URL=\*\*\*\*: .*https://host/path"
    ) as refused:
        Settings()
    assert "hush" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("url", ["https://hooks.example.com/hush", "http://127.0.0.1:9/x?y=z", "http://[::1]/x"])
def test_a_webhook_that_can_be_called_is_taken(monkeypatch, url):
    monkeypatch.setenv("TRAINYARD_FAILURE_WEBHOOK_URL", url)
    assert Settings().failure_webhook_url.get_secret_value() == url


def test_an_empty_webhook_is_none(monkeypatch):
    monkeypatch.setenv("TRAINYARD_FAILURE_WEBHOOK_URL", "")
    assert Settings().failure_webhook_url is None


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["down"], {"TRAINYARD_SERVER_PORT": "abc"}, "TRAINYARD_SERVER_PORT=abc"),
        (["up"], {"TRAINYARD_HOME": "~no-such-user/x"}, "TRAINYARD_HOME=~no-such-user/x"),
        (["doctor", "--quick"], {"TRAINYARD_S3_TRANSPORT": "pigeon"}, "TRAINYARD_S3_TRANSPORT=pigeon"),
        (["models", "promote", "digits", "--store", "nowhere://x"], {}, "nowhere"),
    ],
)
def test_the_command_line_says_so_without_a_traceback(tmp_path, arguments, variables, words):
    env = {**os.environ, "TRAINYARD_HOME": str(tmp_path), **variables}
    command = [sys.executable, "-m", "trainyard", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "pydantic" not in done.stderr


def documented():
    """Variable to default and meaning, from the table in docs/settings.md."""
    lines = (Path(__file__).resolve().parents[2] / "docs" / "settings.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `TRAINYARD_")]
    return {name.strip("`"): (default.strip("`"), meaning) for name, default, meaning in rows}


def test_the_documented_settings_are_those_there_are(monkeypatch):
    monkeypatch.delenv("TRAINYARD_HOME")
    defaults = Settings()
    expected = {}
    for name, field in Settings.model_fields.items():
        value = getattr(defaults, name)
        default = "" if value is None else str(value).replace(str(Path.home()), "~")
        expected[f"TRAINYARD_{name.upper()}"] = (default, field.description.replace("``", "`"))
    assert documented() == expected


@pytest.mark.parametrize("place", ["", "/objects", "/./models/x"])
def test_a_store_among_the_files_of_the_home_is_refused(monkeypatch, tmp_path, place):
    monkeypatch.setenv("TRAINYARD_HOME", str(tmp_path))
    for url in (f"{tmp_path}{place}", f"file://{tmp_path}{place}"):
        monkeypatch.setenv("TRAINYARD_STORE", url)
        with pytest.raises(InvalidInputError, match=rf"TRAINYARD_STORE={url}: .* is {tmp_path}/store"):
            Settings()


def test_the_homes_own_store_may_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TRAINYARD_HOME", str(tmp_path))
    monkeypatch.setenv("TRAINYARD_STORE", f"{tmp_path}/store")
    assert Settings().store_url == f"{tmp_path}/store"
