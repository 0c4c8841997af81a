"""Options of the console script that need no server."""

import os
import time

import pytest
from typer.testing import CliRunner

from trainyard import cli
from trainyard.tasks.artifacts.products import StagedData
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.records import write_record
from trainyard.tasks.errors import InvalidInputError


@pytest.fixture
def pipeline(tmp_path):
    path = tmp_path / "pipeline.yaml"
    (tmp_path / "train.py").touch()
    path.write_text("estimator: {source_directory: ., entry_script: train.py}\npolicies: {train: {retries: 2}}\n")
    return path


def modes(pipeline, refresh=(), from_stage=None):
    loaded = cli._load(pipeline, [], list(refresh), from_stage, server=False)
    return {name: policy.cache for name, policy in loaded.policies.items() if policy.cache != "on"}


def test_from_a_stage_on_everything_is_made_again(pipeline):
    assert modes(pipeline, from_stage="export") == dict.fromkeys(("export", "validate", "register"), "refresh")
    assert modes(pipeline, from_stage="register") == {"register": "refresh"}


def test_one_stage_is_refreshed_alone_and_keeps_its_policy(pipeline):
    assert modes(pipeline, refresh=["train"]) == {"train": "refresh"}
    assert cli._load(pipeline, [], ["train"], None, server=False).policies["train"].retries == 2
    assert modes(pipeline, ["stage"], "validate") == dict.fromkeys(("stage", "validate", "register"), "refresh")


def test_an_unknown_stage_is_named_with_its_option(pipeline):
    with pytest.raises(InvalidInputError, match=r"--from-stage exprot: the stages are stage, train"):
        modes(pipeline, from_stage="exprot")
    with pytest.raises(InvalidInputError, match="--refresh trian"):
        modes(pipeline, refresh=["trian"])


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


def test_gc_without_a_limit_removes_nothing_and_says_why(home):
    with pytest.raises(SystemExit) as ended:
        cli.gc()
    assert ended.value.code == cli.BAD_INPUT
