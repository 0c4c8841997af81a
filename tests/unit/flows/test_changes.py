"""What ``trainyard explain`` says of data and sources that changed between two runs: what, by name."""

import shutil

import pytest

from trainyard.flows.changes import describe_difference, manifest_changes
from trainyard.flows.explanation import explain_run
from trainyard.tasks.artifacts.digests import digest_bytes
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.runs import RunName, StageNote
from trainyard.tasks.caching.stage import StageContext, run_stage
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_listings
from trainyard.tasks.staging.listing import list_reference, listing_components
from trainyard.tasks.staging.manifest import DatasetManifest, ManifestEntry
from trainyard.tasks.staging.task import STAGE


def manifest(contents, version="1"):
    entries = (
        ManifestEntry(key=key, num_bytes=len(text), sha256=digest_bytes(text.encode()), version=version)
        for key, text in sorted(contents.items())
    )
    return DatasetManifest(uri="s3://b", single_object=False, objects=tuple(entries))


def test_every_kind_of_change_names_the_first_objects():
    old = manifest({"gone.npy": "1", "same.npy": "1", **{f"changed-{n}": "1" for n in range(5)}})
    new = manifest({"same.npy": "1", "c.npy": "1", "a.npy": "1", **{f"changed-{n}": "2" for n in range(5)}})
    assert manifest_changes(new, old) == [
        "+2 objects (a.npy, c.npy)",
        "-1 object (gone.npy)",
        "5 objects changed (changed-0, changed-1, changed-2 and 2 more)",
    ]
    rewritten = manifest({"same.npy": "1"}, version="2")
    assert manifest_changes(rewritten, manifest({"same.npy": "1"})) == [
        "1 object written again with the same bytes (same.npy)"
    ]


@pytest.fixture
def source(tmp_path):
    directory = tmp_path / "source"
    directory.mkdir()
    for name in ("a.npy", "b.npy"):
        (directory / name).write_text(name)
    return directory


@pytest.fixture
def stage(tmp_path, source):
    """Stage the source in a run of that id."""

    def run(run_id, **changes):
        settings = {"store_url": str(tmp_path / "store"), "home": tmp_path / "home", **changes}
        context = StageContext(run_folder=RunName.now(run_id).folder, **settings)
        listings = [list_reference(Datastore(url=str(source)).as_mount())]
        run_stage(STAGE, listing_components(listings), lambda key: stage_listings(listings, context), context)
        return context.store

    return run


def test_explain_names_the_objects_that_made_the_difference(stage, source):
    stage("first")
    for name in ("c.npy", "d.npy", "e.npy"):
        (source / name).write_text(name)
    (source / "a.npy").unlink()
    store = stage("second")
    _, [explanation] = explain_run(store)
    assert explanation.reasons[:-1] == ["data: +3 objects (c.npy, d.npy, e.npy)", "data: -1 object (a.npy)"]


def test_without_the_manifests_the_numbers_are_still_said(stage, source, tmp_path):
    stage("first")
    (source / "c.npy").write_text("c")
    store = stage("second")
    shutil.rmtree(tmp_path / "store" / "objects")
    _, [explanation] = explain_run(store)
    assert explanation.reasons[:-1] == ["dataset 0: number of objects: 2 → 3", "dataset 0: objects changed"]


@pytest.fixture
def notes(tmp_path):
    """Two notes of a training, before and after the source tree changed."""
    store = ArtifactStore(str(tmp_path / "store"))
    project = tmp_path / "project"
    (project / "lib").mkdir(parents=True)

    def note(files, **components):
        for name, text in files.items():
            (project / name).write_text(text)
        tree = store.put_files({name: project / name for name in files})
        return StageNote(
            stage="train", status="ran", cache="on", components={"input:source": tree.sha256, **components}
        )

    return store, note


def test_explain_names_the_source_files_that_changed(notes):
    store, note = notes
    old = note({"train.py": "1", "old.py": "1", "lib/a.py": "1"})
    new = note({"train.py": "2", "lib/a.py": "1", "lib/b.py": "1"})
    found = describe_difference(store, new, old)
    assert found == ["source: train.py changed", "source: lib/b.py added", "source: old.py removed"]


def test_without_the_trees_the_source_is_still_said_to_have_changed(notes, tmp_path):
    store, note = notes
    old, new = note({"train.py": "1"}), note({"train.py": "2"})
    shutil.rmtree(tmp_path / "store" / "objects")
    assert describe_difference(store, new, old) == ["input:source changed"]


def test_another_argument_is_said_once_and_another_order_of_the_same_ones_too(notes):
    store, note = notes
    old = note({}, **{"config:argument order": "--a", "config:argument[--a]": "1"})
    more = note({}, **{"config:argument order": "--a --b", "config:argument[--a]": "1", "config:argument[--b]": "2"})
    turned = more.model_copy(update={"components": {**more.components, "config:argument order": "--b --a"}})
    assert describe_difference(store, more, old) == ["config:argument[--b] added: 2"]
    assert describe_difference(store, turned, more) == ["config:argument order: --a --b → --b --a"]
