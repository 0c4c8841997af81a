from pathlib import Path

import pytest
from pydantic import ValidationError

from trainyard.tasks.artifacts.filesystem import Location
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
    with pytest.raises(ValidationError, match="knows no such user"):
        Settings()


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
