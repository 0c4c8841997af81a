"""What is said of a stage that hit or missed: exactly what differs, and from which earlier run."""

from datetime import datetime, timedelta, timezone

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from trainyard.flows.explanation import explain_run
from trainyard.tasks.artifacts.digests import digest_bytes
from trainyard.tasks.artifacts.products import StagedData
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.explain import ELSEWHERE, closest, differences, explain_stage
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.runs import (
    HISTORY_LENGTH,
    RunName,
    StageNote,
    earlier_notes,
    find_run,
    list_runs,
    read_note,
    write_note,
)
from trainyard.tasks.caching.stage import Stage, StageContext, run_stage
from trainyard.tasks.errors import InvalidInputError, StageTimeoutError, TransientError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.specs.spec import Spec
from trainyard.tasks.staging.dataset import stage_references, verify_staged

START = datetime(2026, 11, 22, 22, 35, tzinfo=timezone.utc)
NAMES = st.sampled_from([f"config:{letter}" for letter in "abcdef"])
COMPONENTS = st.dictionaries(NAMES, st.sampled_from(["1", "2", digest_bytes(b"1"), digest_bytes(b"2"), "x" * 90]))


UNFINISHED = "failed, was ended, or is still at work"


def run_name(number):
    return RunName(START + timedelta(minutes=number), f"{number:08x}-41eb")


def note(components, status="ran", cache="on"):
    key = StageKey("export", components).sha256
    return StageNote(stage="export", status=status, cache=cache, key=key, components=components)


def newest_first(*notes):
    """Earlier notes, given oldest first."""
    return [(run_name(number), earlier) for number, earlier in enumerate(notes)][::-1]


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("config:opset", "19", "20", "config:opset: 19 → 20"),
        ("library:torch", "2.12.0", "2.13.0", "library:torch: 2.12.0 → 2.13.0"),
        ("code:export/exporter.py", digest_bytes(b"a"), digest_bytes(b"b"), "code:export/exporter.py changed"),
        ("input:source", digest_bytes(b"a"), digest_bytes(b"b"), "input:source changed"),
        ("config:argument[--seed]", "3", "s" * 61, "config:argument[--seed] changed"),
        ("config:argument[--seed]", "", "3", "config:argument[--seed] changed"),
        ("config:argument[--seed]", None, "3", "config:argument[--seed] added: 3"),
        ("config:argument[--seed]", "3", None, "config:argument[--seed] removed: 3"),
        ("code:export/new.py", None, digest_bytes(b"a"), "code:export/new.py added"),
        ("code:export/old.py", digest_bytes(b"a"), None, "code:export/old.py removed"),
    ],
)
def test_a_difference_in_words(name, old, new, words):
    same = {"config:same": "1"}
    before = same if old is None else {**same, name: old}
    after = same if new is None else {**same, name: new}
    assert differences(after, before) == [words]


@given(COMPONENTS, COMPONENTS)
def test_there_is_one_sentence_for_each_component_that_differs_and_no_digest_in_it(new, old):
    differing = sorted(name for name in {*new, *old} if new.get(name) != old.get(name))
    sentences = differences(new, old)
    assert [sentence.split(" ")[0].rstrip(":") for sentence in sentences] == differing
    assert all(len(sentence) < 40 for sentence in sentences)


@given(COMPONENTS, st.lists(COMPONENTS, min_size=1, max_size=8))
def test_the_closest_is_the_newest_of_those_that_differ_least(components, earlier):
    distances = [len(differences(components, other)) for other in earlier]
    run, found = closest(components, newest_first(*map(note, earlier)))
    newest = max(number for number, distance in enumerate(distances) if distance == min(distances))
    assert (run, found.components) == (run_name(newest), earlier[newest])


@given(COMPONENTS, st.lists(COMPONENTS, max_size=8))
def test_a_miss_names_exactly_what_differs_from_the_closest(components, earlier):
    earlier = [other for other in earlier if other != components]
    *reasons, compared = explain_stage(note(components), newest_first(*map(note, earlier)))
    if not earlier:
        assert (reasons, compared) == ([], "there is no earlier result of this stage")
    else:
        assert len(reasons) == min(len(differences(components, other)) for other in earlier)
        assert compared.startswith("(compared with run 0")


def test_a_hit_names_the_newest_run_of_its_key():
    earlier = newest_first(note({"a": "1"}), note({"a": "1"}), note({"a": "2"}))
    assert explain_stage(note({"a": "1"}, "cached"), earlier) == [f"nothing changed since run {run_name(1)}"]


def test_a_hit_on_a_record_of_no_known_run():
    assert "a verified result" in explain_stage(note({"a": "1"}, "cached"), [])[0]


def test_nothing_is_read_beyond_the_run_that_explains():
    def earlier():
        yield run_name(2), note({"a": "1"})
        raise AssertionError("read on")

    assert explain_stage(note({"a": "1"}, "cached"), earlier())


@pytest.mark.parametrize("mode", ["off", "refresh"])
def test_a_policy_that_asks_for_a_run_is_the_reason(mode):
    (reason,) = explain_stage(note({"a": "1"}, cache=mode), newest_first(note({"a": "1"})))
    assert f"cache={mode}" in reason


@pytest.mark.parametrize(
    ("earlier", "why"),
    [
        (note({"a": "1"}), "missing or damaged"),
        (note({"a": "1"}, cache="refresh"), "missing or damaged"),
        (note({"a": "1"}, "unfinished"), "failed, was ended, or is still at work"),
        (note({"a": "1"}, cache="off"), "kept no result"),
    ],
)
def test_a_miss_where_nothing_changed(earlier, why):
    (reason,) = explain_stage(note({"a": "1"}), newest_first(note({"a": "2"}), earlier, note({"a": "3"})))
    assert reason.startswith(f"nothing changed since run {run_name(1)}")
    assert why in reason


def test_a_miss_is_not_compared_with_runs_that_left_no_result():
    earlier = newest_first(note({"a": "1", "b": "1"}), note({"a": "2", "b": "1"}, "unfinished"))
    assert explain_stage(note({"a": "2", "b": "2"}), earlier)[:2] == ["a: 1 → 2", "b: 1 → 2"]


def test_what_changed_since_a_run_that_failed_is_told_where_that_is_closer():
    """As after a gate that was not passed, and is loosened."""
    kept, failed = note({"a": "1", "b": "1"}), note({"a": "2", "b": "1"}, "unfinished")
    told = ["a: 1 → 2", "b: 1 → 2", f"(compared with run {run_name(0)})"]
    more = ["b: 1 → 2", f"(compared with run {run_name(1)}, which {UNFINISHED})"]
    assert explain_stage(note({"a": "2", "b": "2"}), newest_first(kept, failed)) == told + more
    assert explain_stage(note({"a": "1", "b": "2"}), newest_first(kept, failed))[:-1] == ["b: 1 → 2"]
    first = ["there is no earlier result of this stage"]
    assert explain_stage(note({"a": "2", "b": "2"}), [(run_name(1), failed)]) == first + more


def of_model(name, components):
    return note(components).model_copy(update={"model": name})


def test_projects_that_share_a_store_are_not_compared():
    theirs, ours = of_model("theirs", {"a": "1", "b": "1"}), of_model("ours", {"a": "2", "b": "2"})
    new = of_model("ours", {"a": "1", "b": "2"})
    assert explain_stage(new, newest_first(theirs)) == ["there is no earlier run of this project (ours)"]
    assert explain_stage(new, newest_first(ours, theirs)) == ["a: 2 → 1", f"(compared with run {run_name(0)})"]
    unnamed = note({"a": "1", "b": "3"})
    assert explain_stage(new, newest_first(unnamed))[0] == "b: 3 → 2", "of an earlier version"
    same = of_model("ours", {"a": "1", "b": "1"}).model_copy(update={"status": "cached"})
    assert explain_stage(same, newest_first(theirs)) == [f"nothing changed since run {run_name(0)}"]


def test_why_a_result_was_not_used_is_told_as_it_was_noted():
    elsewhere = note({"a": "1"}).model_copy(update={"missed": ELSEWHERE})
    assert explain_stage(elsewhere, newest_first(note({"a": "1"}))) == [
        f"nothing changed since run {run_name(0)}, but its data was not on this machine"
    ]


def test_a_stage_that_never_had_a_key():
    unkeyed = StageNote(stage="stage", status="unfinished", cache="on")
    assert explain_stage(unkeyed, newest_first(note({"a": "1"}))) == [
        "no key was noted: it failed or was ended before its key was known, or is still at work"
    ]


@given(st.datetimes(timezones=st.just(timezone.utc), min_value=datetime(1000, 1, 1)), st.uuids())
def test_a_runs_name_survives_its_folder(started, run_id):
    name = RunName(started, str(run_id))
    assert RunName.parse(name.folder) == name


@given(st.lists(st.datetimes(timezones=st.just(timezone.utc), min_value=datetime(1000, 1, 1)), max_size=5))
def test_folders_sort_as_their_runs_do(times):
    names = [RunName(started, "1") for started in times]
    assert sorted(name.folder for name in names) == [name.folder for name in sorted(names)]


@pytest.mark.parametrize("folder", ["", "x", "20261122T223500.000000Z", "20261122T223500.000000Z-", ".DS_Store"])
def test_other_folders_are_no_runs(folder):
    assert RunName.parse(folder) is None


RUNS = [RunName(START + timedelta(minutes=n), run_id) for n, run_id in enumerate(["ab1", "ab2", "cd", "cdef"])][::-1]


@pytest.mark.parametrize(("wanted", "found"), [(None, "cdef"), ("ab1", "ab1"), ("cd", "cd"), ("cde", "cdef")])
def test_a_run_is_found_by_its_id_or_the_beginning_of_it(wanted, found):
    assert find_run(RUNS, wanted).id == found


def test_of_a_run_that_was_retried_the_newest_attempt_is_found():
    again = RunName(START + timedelta(hours=1), "ab1")
    assert find_run([again, *RUNS], "ab1") == again


@pytest.mark.parametrize(
    ("runs", "wanted", "words"),
    [(RUNS, "ab", "2 runs"), (RUNS, "x", "no pipeline run 'x'; the newest are cdef, cd, ab2"), ([], None, "holds no")],
)
def test_a_run_that_cannot_be_found(runs, wanted, words):
    with pytest.raises(InvalidInputError, match=words):
        find_run(runs, wanted)


class Text(Spec):
    artifact: ArtifactRef


STAGE = Stage(name="export", product_type=Text, packages=())


@pytest.fixture(params=["local", "memory"])
def store_url(request, tmp_path):
    return str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}"


def run_export(store_url, home, number, opset, *, fail=False, cache="on"):
    """One pipeline run with one stage; gives the run's name."""
    name = run_name(number)
    context = StageContext(store_url=store_url, home=home, run_folder=name.folder, cache=cache)

    def work(key):
        if fail:
            raise TransientError("not now")
        return Text(artifact=context.store.put_bytes(opset.encode()))

    run_stage(STAGE, {"config:opset": opset}, work, context)
    return name


def explained(store_url, wanted=None):
    _, (explanation,) = explain_run(ArtifactStore(store_url), wanted)
    return explanation.note.status, explanation.reasons


def test_runs_of_a_stage_are_explained_from_the_store(store_url, tmp_path):
    first = run_export(store_url, tmp_path, 0, "19")
    assert explained(store_url) == ("ran", ["there is no earlier result of this stage"])
    second = run_export(store_url, tmp_path, 1, "20")
    assert explained(store_url) == ("ran", ["config:opset: 19 → 20", f"(compared with run {first})"])
    run_export(store_url, tmp_path, 2, "20")
    assert explained(store_url) == ("cached", [f"nothing changed since run {second}"])
    assert explained(store_url, first.id) == ("ran", ["there is no earlier result of this stage"])


def test_a_run_that_failed_is_explained_too(store_url, tmp_path):
    first = run_export(store_url, tmp_path, 0, "19")
    with pytest.raises(TransientError):
        run_export(store_url, tmp_path, 1, "20", fail=True)
    assert explained(store_url) == ("unfinished", ["config:opset: 19 → 20", f"(compared with run {first})"])
    run_export(store_url, tmp_path, 2, "20")
    assert explained(store_url) == ("ran", [f"nothing changed since run {run_name(1)}, which {UNFINISHED}"])


def test_a_run_that_waits_for_another_has_noted_its_key(store_url, tmp_path):
    first = run_export(store_url, tmp_path, 0, "20")
    context = StageContext(store_url=store_url, home=tmp_path, run_folder=run_name(1).folder, timeout_s=0.2)
    lock = tmp_path / "locks" / f"export-{read_note(ArtifactStore(store_url), first, 'export').key}.lock"
    with FileLock(lock), pytest.raises(StageTimeoutError):
        run_stage(STAGE, {"config:opset": "20"}, lambda key: None, context)
    why = "but whether its result can be used was not yet known"
    assert explained(store_url) == ("unfinished", [f"nothing changed since run {first}, {why}"])


def test_data_that_is_not_on_this_machine_is_no_damage(store_url, tmp_path, caplog):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.txt").write_text("1")
    reference = Datastore(url=str(tmp_path / "data")).as_mount()
    stage = Stage(name="stage", product_type=StagedData, packages=(), verify=verify_staged)
    for number, home in enumerate(("one", "two")):
        context = StageContext(store_url=store_url, home=tmp_path / home, run_folder=run_name(number).folder)
        run_stage(
            stage, {"config:x": "1"}, lambda key, context=context: stage_references([reference], context), context
        )
    why = "but its data was not on this machine"
    assert explained(store_url) == ("ran", [f"nothing changed since run {run_name(0)}, {why}"])
    assert "not usable" not in caplog.text


def test_the_run_is_no_part_of_the_key(store_url, tmp_path):
    keys = [
        read_note(ArtifactStore(store_url), run_export(store_url, tmp_path, number, "20"), "export").key
        for number in range(2)
    ]
    assert keys[0] == keys[1]


def test_without_a_pipeline_run_nothing_is_noted(tmp_path):
    context = StageContext(store_url=str(tmp_path / "store"), home=tmp_path)
    run_stage(STAGE, {}, lambda key: Text(artifact=context.store.put_bytes(b"1")), context)
    assert list_runs(context.store) == []


def test_a_store_that_refuses_the_note_does_not_fail_the_stage(tmp_path, caplog):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "runs").write_text("in the way of the notes")
    run_export(str(tmp_path / "store"), tmp_path, 0, "20")
    assert "will not know how the stage 'export' went" in caplog.text


def test_a_damaged_note_is_no_note(tmp_path):
    store = ArtifactStore(str(tmp_path / "store"))
    run = run_export(store.url, tmp_path, 0, "20")
    (tmp_path / "store" / "runs" / run.folder / "export.json").write_text('{"half": ')
    assert read_note(store, run, "export") is None


def test_only_so_many_earlier_runs_are_looked_at(tmp_path):
    store = ArtifactStore(str(tmp_path / "store"))
    runs = [run_name(number) for number in range(HISTORY_LENGTH + 3)]
    for run in runs:
        write_note(store, run.folder, note({"a": "1"}))
    found = [run for run, _ in earlier_notes(store, list_runs(store), runs[-1], "export")]
    assert found == runs[2:-1][::-1]


@pytest.mark.parametrize(("stage", "words"), [("exprot", "the stages are stage, train"), ("train", "did not come to")])
def test_a_stage_that_cannot_be_explained(tmp_path, stage, words):
    run_export(str(tmp_path / "store"), tmp_path, 0, "20")
    with pytest.raises(InvalidInputError, match=words):
        explain_run(ArtifactStore(str(tmp_path / "store")), None, stage)
