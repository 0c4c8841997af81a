"""What a run's handle reads from the store."""

from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest

from trainyard import PipelineRun, errors
from trainyard.tasks.artifacts.products import TrainedRun
from trainyard.tasks.artifacts.store import ArtifactStore


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(f"file://{tmp_path}/store")


@pytest.fixture
def run(store, tmp_path):
    """A run whose training left four files."""
    for name in ("outputs/model.pt2", "outputs/deeper/notes.txt", "logs/a.txt", "logs/ranks/rank-00000.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    outputs, logs = store.put_tree(tmp_path / "outputs"), store.put_tree(tmp_path / "logs")
    trained = TrainedRun(
        run_id="1", source=outputs, outputs=outputs, logs=logs, records=logs, world_size=1, resumed=False
    )
    run_id = uuid4()
    (store.root / f"answers/{run_id}/train.json").write_bytes(trained.model_dump_json().encode())
    return PipelineRun(run_id, store=store.url)


def test_a_file_takes_the_place_of_an_older_one(run, tmp_path):
    target = tmp_path / "copy.txt"
    target.write_text("of before")
    assert run.download_file("outputs/deeper/notes.txt", target) == target
    assert target.read_text() == "outputs/deeper/notes.txt"


def test_a_file_that_cannot_be_had_leaves_the_older_one(run, store, tmp_path):
    target = tmp_path / "copy.txt"
    target.write_text("of before")
    for path in Path(store.url.removeprefix("file://")).glob("objects/*/*"):
        if path.read_bytes() == b"outputs/deeper/notes.txt":
            path.write_bytes(b"damaged")
    with pytest.raises(errors.ArtifactDamagedError):
        run.download_file("outputs/deeper/notes.txt", target)
    assert target.read_text() == "of before"


def test_each_listing_is_read_once_however_many_files_it_names(run, monkeypatch):
    reads = Counter()
    read = ArtifactStore.list_tree_of

    def counted(self, sha256):
        reads[sha256] += 1
        return read(self, sha256)

    monkeypatch.setattr(ArtifactStore, "list_tree_of", counted)
    names = ["logs/a.txt", "logs/ranks/rank-00000.log", "outputs/deeper/notes.txt", "outputs/model.pt2"]
    assert run.get_file_names() == names
    assert sorted(reads.values()) == [1, 1]
