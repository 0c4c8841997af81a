"""Options of the console script that need no server."""

import errno
import os
import subprocess
import sys
import time
from io import StringIO

import pytest
from rich.console import Console
from typer.testing import CliRunner

from trainyard import cli
from trainyard.cli import pipelines
from trainyard.cli.output import BAD_INPUT, FAILED
from trainyard.flows.cleaning import render_collection
from trainyard.tasks.artifacts.products import StagedData
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.records import write_record
from trainyard.tasks.cleaning.collect import Collection
from trainyard.tasks.cleaning.plan import Limits, Plan
from trainyard.tasks.errors import InvalidInputError


@pytest.fixture
def pipeline(tmp_path):
    path = tmp_path / "pipeline.yaml"
    (tmp_path / "train.py").touch()
    path.write_text("estimator: {source_directory: ., entry_script: train.py}\npolicies: {train: {retries: 2}}\n")
    return path


def modes(pipeline, refresh=(), from_stage=None):
    loaded = pipelines._load(pipeline, [], list(refresh), from_stage, server=False)
    return {name: policy.cache for name, policy in loaded.policies.items() if policy.cache != "on"}


def test_from_a_stage_on_everything_is_made_again(pipeline):
    assert modes(pipeline, from_stage="export") == dict.fromkeys(("export", "validate", "register"), "refresh")
    assert modes(pipeline, from_stage="register") == {"register": "refresh"}


def test_one_stage_is_refreshed_alone_and_keeps_its_policy(pipeline):
    assert modes(pipeline, refresh=["train"]) == {"train": "refresh"}
    assert pipelines._load(pipeline, [], ["train"], None, server=False).policies["train"].retries == 2
    assert modes(pipeline, ["stage"], "validate") == dict.fromkeys(("stage", "validate", "register"), "refresh")


def test_an_unknown_stage_is_named_with_its_option(pipeline):
    with pytest.raises(InvalidInputError, match=r"--from-stage exprot: the stages are stage, train"):
        modes(pipeline, from_stage="exprot")
    with pytest.raises(InvalidInputError, match="--refresh trian"):
        modes(pipeline, refresh=["trian"])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"from_stage": "export"}, "--from-stage export"),
        ({"refresh": ["train", "validate", "register"]}, "--refresh validate register"),
    ],
)
def test_a_stage_that_the_pipeline_does_not_have_is_refused(pipeline, options, named):
    pipeline.write_text(f"{pipeline.read_text()}export: null\n")
    with pytest.raises(InvalidInputError, match=rf"{named}: this pipeline has no such stage.* ends after metrics"):
        modes(pipeline, **options)
    assert modes(pipeline, from_stage="metrics")["metrics"] == "refresh"


def gc(*options):
    return CliRunner().invoke(cli.app, ["gc", *options])


def test_gc_says_what_would_go_and_then_removes_it(home, tmp_path):
    store = ArtifactStore(str(home / "store"))
    key = StageKey("stage", {"config": "1"})
    write_record(store, key, StagedData())
    [record] = (home / "store" / "cache").rglob("*.json")
    os.utime(record, (time.time() - 40 * 24 * 3600,) * 2)
    told = gc("--keep-days", "30", "--dry-run")
    assert (told.exit_code, record.exists()) == (0, True), told.output
    assert "would be removed" in told.output
    assert "cached result" in told.output
    done = gc("--keep-days", "30", "--max-size", "50GB")
    assert (done.exit_code, record.exists()) == (0, False), done.output


def test_gc_says_why_the_limit_is_not_met_right_after_a_run(home):
    write_record(ArtifactStore(str(home / "store")), StageKey("stage", {"config": "1"}), StagedData())
    told = gc("--max-size", "1B", "--dry-run")
    first, *_ = told.output.splitlines()
    assert first.startswith("0 B would be removed, ") and first.endswith(" kept"), told.output
    assert "The limit of 1 B is not met: " in told.output
    assert "used within the last hour" in told.output
    assert "not met" not in gc("--max-size", "1GB", "--dry-run").output


def test_gc_says_why_nothing_goes(home):
    write_record(ArtifactStore(str(home / "store")), StageKey("stage", {"config": "1"}), StagedData())
    [record] = (home / "store" / "cache").rglob("*.json")
    told = gc("--keep-days", "0", "--dry-run").output
    assert "Nothing goes: " in told and "used within the last hour" in told
    os.utime(record, (time.time() - 2 * 24 * 3600,) * 2)
    assert "were used within the last 30 days" in " ".join(gc("--keep-days", "30", "--dry-run").output.split())
    assert "Nothing goes" not in gc("--keep-days", "1", "--dry-run").output


@pytest.mark.parametrize("command", [["gc", "--keep-days", "1"], ["explain"]])
def test_a_named_store_that_is_not_there_is_refused(home, tmp_path, command):
    done = CliRunner().invoke(cli.app, [*command, "--store", str(tmp_path / "nowhere")])
    assert done.exit_code == BAD_INPUT
    assert "there is no such place" in done.output
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "nowhere").mkdir()
    assert "no such place" not in CliRunner().invoke(cli.app, [*command, "--store", str(tmp_path / "nowhere")]).output


def test_where_the_store_is_elsewhere_each_place_has_the_limit():
    store, at_home = Plan((), (), 5000, young_bytes=2000, needed_bytes=3000), Plan((), (), 900)
    found = Collection(store, at_home, Limits(max_bytes=1000), shared=False, server_bytes=7)
    console = Console(file=StringIO(), width=200)
    console.print(render_collection(found, dry_run=True))
    said = console.file.getvalue()
    assert "is not met in the store: 2.0 KiB are too young to go" in said and "2.9 KiB are needed" in said
    assert "on this machine:" not in said
    assert "never removed: 7 B of Prefect's own server" in said


def test_gc_without_a_limit_removes_nothing_and_says_why(home):
    done = gc()
    assert done.exit_code == BAD_INPUT
    assert "Say how much to keep" in done.output


@pytest.mark.parametrize("command", [["up", "--yes"], ["install-horovod"], ["run", "pipeline.yaml"]])
def test_a_home_that_cannot_be_written_is_one_line(tmp_path, pipeline, command):
    (tmp_path / "file").touch()
    env = {**os.environ, "TRAINYARD_HOME": str(tmp_path / "file" / "home"), "HOME": str(tmp_path / "file")}
    command = [sys.executable, "-m", "trainyard", *command]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert str(tmp_path / "file") in done.stderr and "Not a directory" in done.stderr
    assert "TRAINYARD_HOME" in done.stderr


@pytest.fixture
def failing_down(monkeypatch):
    """Run a command whose work ends with an error."""

    def run(error):
        def fail(*_):
            raise error

        monkeypatch.setattr("trainyard.deployments.local.down.bring_down", fail)
        return CliRunner().invoke(cli.app, ["down"])

    return run


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "Make room"), (errno.EROFS, "permissions")])
def test_a_disk_that_cannot_be_written_is_named_with_what_to_do(failing_down, number, words):
    done = failing_down(OSError(number, os.strerror(number), "/disk/services/server.json"))
    assert done.exit_code == FAILED
    assert f"/disk/services/server.json: {os.strerror(number)}" in done.output and words in done.output


def test_a_defect_keeps_its_traceback(failing_down):
    assert isinstance(failing_down(FileNotFoundError(errno.ENOENT, "no such file")).exception, FileNotFoundError)
