"""What a stage at work reads stands in no record yet: the run's notes keep it."""

import pytest

from tests.unit.cleaning.aging import collect
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.runs import RunName, StageNote, write_note
from trainyard.tasks.training.snapshot import snapshot_source


@pytest.mark.parametrize("known", [True, False], ids=["its key is known", "before that"])
def test_the_source_of_a_training_at_work_stays(aged_place, tmp_path, known):
    context, age_all = aged_place
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text("print(1)\n")
    source = snapshot_source(project, context.store)
    age_all()
    assert snapshot_source(project, context.store) == source  # put again: on S3 its objects stay as old as they are
    age_all()
    if known:
        components = {"input:source": source.sha256}
        key = StageKey("train", components).sha256
        note = StageNote(stage="train", status="unfinished", cache="on", key=key, components=components)
        write_note(context.store, RunName.now("run-1").folder, note)
    else:
        run = context.model_copy(update={"run_folder": RunName.now("run-1").folder})
        run.note_inputs("train", {"input:source": source.sha256})
    collect(context)
    context.store.verify(source)
    assert context.store.read_entry(source, "train.py") == b"print(1)\n"
