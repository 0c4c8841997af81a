"""What is kept of a folder with links in it: what the script made, under every name that it gave it."""

import pytest

from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.training.collected import collect_files
from trainyard.tasks.training.keep import keep_logs, keep_outputs
from trainyard.tasks.training.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path):
    """A run whose script has written a model, and is about to end. The home directory is reached by a link."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to("disk")
    run = RunDirectory.create(tmp_path / "home", StageKey("train", {}))
    for folder in ("outputs/epoch-3", "logs"):
        (run.workspace / folder).mkdir(parents=True)
    (run.workspace / "outputs" / "epoch-3" / "model.pt").write_bytes(b"model")
    return run


def kept(run):
    run.keep_workspace([])
    return {name: path.read_bytes() for name, path in collect_files(run.source / "outputs", run).items()}


INSIDE = {
    "relative": lambda run: "epoch-3/model.pt",
    "absolute": lambda run: run.workspace / "outputs" / "epoch-3" / "model.pt",
    "absolute, by its real path": lambda run: (run.workspace / "outputs" / "epoch-3" / "model.pt").resolve(),
    "elsewhere in the workspace": lambda run: "../results/model.pt",
    "around the workspace": lambda run: "../../data/model.pt",
    "a checkpoint": lambda run: run.checkpoints / "model.pt",
    "a link to it": lambda run: "hop.pt",
}


@pytest.mark.parametrize("target", INSIDE)
def test_a_link_inside_the_run_is_kept_as_what_it_points_at(run, target, caplog):
    for folder in (run.workspace / "results", run.workspace.parent / "data", run.checkpoints):
        folder.mkdir(exist_ok=True)
        (folder / "model.pt").write_bytes(b"model")
    (run.workspace / "outputs" / "hop.pt").symlink_to(run.workspace / "outputs" / "epoch-3" / "model.pt")
    (run.workspace / "outputs" / "latest.pt").symlink_to(INSIDE[target](run))
    assert kept(run) == dict.fromkeys(("epoch-3/model.pt", "hop.pt", "latest.pt"), b"model")
    assert not caplog.messages


def test_a_link_to_a_folder_is_kept_with_its_files(run):
    (run.workspace / "outputs" / "latest").symlink_to("epoch-3")
    assert kept(run) == {"epoch-3/model.pt": b"model", "latest/model.pt": b"model"}


OUTSIDE = {
    "another file": lambda tmp_path: tmp_path / "secret",
    "one by many steps up": lambda tmp_path: "../" * 40 + "etc/hostname",
    "nothing": lambda tmp_path: "gone.pt",
    "itself": lambda tmp_path: "latest.pt",
    "the folder that it is in": lambda tmp_path: ".",
}


@pytest.mark.parametrize("target", OUTSIDE)
def test_a_link_out_of_the_run_is_named_and_not_kept(run, tmp_path, target, caplog):
    (tmp_path / "secret").write_bytes(b"secret")
    (run.workspace / "outputs" / "latest.pt").symlink_to(OUTSIDE[target](tmp_path))
    assert kept(run) == {"epoch-3/model.pt": b"model"}
    assert "outputs/" in caplog.text and "'latest.pt'" in caplog.text


def test_links_are_kept_in_the_store_and_those_of_logs_stay_inside_too(run, context, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (run.workspace / "outputs" / "latest.pt").symlink_to("epoch-3/model.pt")
    (run.workspace / "logs" / "events").symlink_to(tmp_path / "secret")
    (run.workspace / "logs" / "train.log").write_bytes(b"line")
    run.launcher_log.touch()
    run.keep_workspace([])
    outputs, logs = keep_outputs(run, context), keep_logs(run, context)
    assert context.store.read_entry(outputs, "latest.pt") == b"model"
    assert [entry.path for entry in context.store.list_tree(logs).entries] == ["launcher.log", "train.log"]


def test_a_folder_that_the_script_removed_holds_nothing(run):
    (run.workspace / "outputs").rename(run.workspace / "gone")
    assert kept(run) == {}
