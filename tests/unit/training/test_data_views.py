"""What a run sees of its data, file by file."""

import os

import pytest

from trainyard import Datastore
from trainyard.tasks.artifacts.datasets import dataset_directory
from trainyard.tasks.artifacts.products import StagedData, StagedDataset
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.training.data_views import make_views
from trainyard.tasks.training.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path):
    run = RunDirectory.create(tmp_path, StageKey("train", {}))
    run.workspace.mkdir(parents=True)
    return run


def stage(home, digit, files, single_object=False):
    """A dataset as staging leaves it."""
    for name, text in files.items():
        path = dataset_directory(home, digit * 64) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o444)
    manifest = ArtifactRef(uri="memory://manifest", sha256="0" * 64, num_bytes=0)
    return StagedDataset(
        uri="x", sha256=digit * 64, single_object=single_object, num_objects=1, num_bytes=1, manifest=manifest
    )


def views_of(run, home, *datasets):
    references, staged = zip(*datasets, strict=True)
    return make_views(references, StagedData(datasets=staged), run, home)


def test_a_mounted_file_is_a_short_link_and_a_downloaded_one_a_writable_copy(run, tmp_path):
    """Short enough for the inode: see docs/adr/0007."""
    dataset = stage(tmp_path, "a", {"train/images/n01440764_10026.jpg": "cat"})
    mounted, copied = Datastore(url="/a").as_mount(), Datastore(url="/a").as_download()
    views = views_of(run, tmp_path, (mounted, dataset), (copied, dataset))
    link, copy = (views.paths[view] / "train/images/n01440764_10026.jpg" for view in (mounted, copied))
    assert link.read_text() == copy.read_text() == "cat"
    assert link.is_symlink() and len(os.readlink(link)) < 60
    assert not copy.is_symlink() and copy.stat().st_mode & 0o200


def test_equal_data_from_two_addresses_is_shown_once_and_at_the_same_place_in_every_run(run, tmp_path):
    dataset = stage(tmp_path, "a", {"x": "1"})
    here, there = (Datastore(url=url).as_mount() for url in ("/here", "/there"))
    views = views_of(run, tmp_path, (here, dataset), (there, dataset))
    assert views.paths[here] == views.paths[there]
    again = RunDirectory.create(tmp_path, StageKey("train", {}))
    assert again.run_id != run.run_id
    assert views_of(again, tmp_path, (here, dataset)).paths[here] == views.paths[here]


def test_two_datasets_may_share_a_directory_but_not_a_file(run, tmp_path):
    first, second = stage(tmp_path, "a", {"x/1": "1"}), stage(tmp_path, "b", {"x/2": "2"}, single_object=False)
    one, two = (Datastore(url=url).as_mount("data") for url in ("/one", "/two"))
    views_of(run, tmp_path, (one, first), (two, second))
    assert sorted(os.listdir(run.workspace / "data/x")) == ["1", "2"]


def test_nothing_of_the_data_is_left_and_all_of_the_project_is(run, tmp_path):
    (run.workspace / "data").mkdir()
    (run.workspace / "data" / "own.py").write_text("")
    dataset = stage(tmp_path, "a", {"x": "1", "deep/y": "2"})
    places = (None, "data", "../data", "../../data")
    references = [Datastore(url="/a").as_download(place) for place in places]
    views = views_of(run, tmp_path, *((reference, dataset) for reference in references))
    assert all((views.paths[reference] / "deep/y").read_text() == "2" for reference in references)
    run.keep_workspace(views.roots)
    assert [path for path in run.source.rglob("*") if path.is_file()] == [run.source / "data" / "own.py"]
    assert not run.around.exists() and not run.area.exists()


def test_a_single_object_keeps_its_name(run, tmp_path):
    dataset = stage(tmp_path, "a", {"weights.pt": "w"}, single_object=True)
    reference = Datastore(url="/a").path("weights.pt").as_mount("../pretrained")
    path = views_of(run, tmp_path, (reference, dataset)).paths[reference]
    assert path == run.workspace.parent / "pretrained" / "weights.pt"
    assert path.read_text() == "w"
