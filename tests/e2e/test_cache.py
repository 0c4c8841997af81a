"""Run twice: all cached. Change one thing: exactly the stages that depend on it run again."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import PROJECTS, write_points
from tests.e2e.conftest import STAGES, pipeline_on, statuses, that_ran
from trainyard import OnnxExport, OrtValidation, StagePolicy
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.records import StageRecord, record_path
from trainyard.tasks.caching.stage import StageContext, run_stage
from trainyard.tasks.export.task import EXPORT
from trainyard.tasks.metrics.task import STAGE as METRICS
from trainyard.tasks.registry.task import REGISTER
from trainyard.tasks.staging.task import STAGE
from trainyard.tasks.training.task import TRAIN
from trainyard.tasks.validation.task import VALIDATE


@pytest.fixture(scope="module")
def first_run(prefect_server, tmp_path_factory):
    """A pipeline that has run: how to call it again, its home and its result. Tests take a copy of the home."""
    folder = tmp_path_factory.mktemp("first-run")
    shutil.copytree(PROJECTS / "linear", folder / "linear")
    write_points(folder / "points")
    run_pipeline = pipeline_on(folder / "linear", folder / "points")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_HOME", str(folder / "home"))
        return run_pipeline, folder / "home", run_pipeline()


@pytest.fixture
def rerun(first_run, home):
    """Call the pipeline in a home in which it has run once; keyword arguments change its parts."""
    run_pipeline, where_it_ran, _ = first_run
    subprocess.run(["cp", "-a", where_it_ran, home], check=True)  # hard links stay links, what is read-only stays so
    return run_pipeline


@pytest.fixture
def result(first_run):
    return first_run[-1]


def training_runs(home):
    return sorted(path.name for path in (home / "runs").iterdir())


def record_of(result, home, stage):
    path = home / "store" / record_path(stage, result.stages[stage].cache_key)
    return StageRecord.model_validate_json(path.read_bytes())


def product_of(result, home, stage):
    return record_of(result, home, stage).product


def object_path(home, ref):
    return home / "store" / "objects" / ref["sha256"][:2] / ref["sha256"]


def test_the_second_run_is_cached_and_starts_no_training(rerun, result, home):
    runs = training_runs(home)
    second = rerun()
    assert that_ran(result) == STAGES
    assert that_ran(second) == []
    assert len(runs) == 1
    assert training_runs(home) == runs
    assert second.metrics == result.metrics
    assert second.model_uri == f"file://{home}/store/models/linear/1"
    assert Path(second.onnx_path).is_file()
    assert {outcome.attempts for outcome in second.stages.values()} == {1}


def test_each_change_reruns_exactly_what_depends_on_it(run_pipeline, linear_project, points, home):
    """One pipeline, changed step by step: each step says what it changes and what must run again."""
    run_pipeline()

    # A script parameter that changes the model: everything after staging.
    assert that_ran(run_pipeline({"--seed": 7})) == ["train", "metrics", "export", "validate", "register"]

    # The opset: the export and what reads it.
    assert that_ran(run_pipeline({"--seed": 7}, export=OnnxExport(opset=19))) == [
        "export",
        "validate",
        "register",
    ]

    # A tolerance: the validation, and the registration that carries its report.
    loose = OrtValidation(atol=1e-3)
    assert that_ran(run_pipeline({"--seed": 7}, validation=loose)) == ["validate", "register"]

    # A byte of the data.
    array = np.load(points / "points.npy")
    array[0, 0] += 0.25
    np.save(points / "points.npy", array)
    assert that_ran(run_pipeline({"--seed": 7})) == STAGES

    # A byte of the source that does not change what the script makes: training runs again, and with it the
    # metrics (their records hold times); the model comes out the same, so nothing after it has to run but
    # the registration, whose lineage names the source.
    script = linear_project / "train.py"
    script.write_text(script.read_text() + "#\n")
    assert that_ran(run_pipeline({"--seed": 7})) == ["train", "metrics", "register"]

    # The same model with another curve: the page of the validation report shows it.
    longer = 'run.log("loss", 0.125, step=99)\n'
    script.write_text(script.read_text() + longer)
    assert that_ran(run_pipeline({"--seed": 7})) == ["train", "metrics", "validate", "register"]

    # And back again: all of it is still known.
    script.write_text(script.read_text().removesuffix(f"#\n{longer}"))
    assert that_ran(run_pipeline({"--seed": 7})) == []


STAGES_OF_CACHE = {stage.name: stage for stage in (STAGE, TRAIN, METRICS, EXPORT, VALIDATE, REGISTER)}
REFERENCES = {
    "stage": ["datasets.0.manifest"],
    "train": ["source", "outputs", "logs", "records"],
    "metrics": ["report", "plots"],
    "export": ["bundle"],
    "validate": ["report", "page"],
    "register": ["manifest"],
}
"""Every artifact that a stage's product refers to."""


def references_in(product, path=""):
    """Path to sha256 and kind, of each reference at any depth."""
    if isinstance(product, dict) and set(product) == set(ArtifactRef.model_fields):
        return {path[1:]: ArtifactRef.model_validate(product)}
    items = product.items() if isinstance(product, dict) else enumerate(product) if isinstance(product, list) else ()
    return {name: ref for key, value in items for name, ref in references_in(value, f"{path}.{key}").items()}


def files_of(home, ref):
    """The object of an artifact, and one of a file in it where it is a tree."""
    store = ArtifactStore(str(home / "store"))
    entries = store.list_tree(ref).entries[:1] if ref.kind == "tree" else ()
    return [object_path(home, {"sha256": sha256}) for sha256 in (ref.sha256, *(entry.sha256 for entry in entries))]


def stages_that_would_run(home, records):
    """Every stage asked for what it made in one finished pipeline; without Prefect, and without doing the work."""
    context = StageContext(store_url=str(home / "store"), home=home)

    def runs(name):
        stage, record = STAGES_OF_CACHE[name], records[name]
        product = stage.product_type.model_validate(record.product)
        return run_stage(stage, record.components, lambda key: product, context).status == "ran"

    return [name for name in STAGES if runs(name)]


def damaged(content):
    """An artifact's object with a bit flipped, or None to delete it."""
    return [None, bytes([content[0] ^ 1]) + content[1:] if content else b"x"]


def test_each_artifact_and_value_of_each_stage_is_proven_and_its_damage_reruns_exactly_its_stage(rerun, result, home):
    records = {name: record_of(result, home, name) for name in STAGES}
    found = {name: references_in(record.product) for name, record in records.items()}
    assert {name: list(refs) for name, refs in found.items()} == REFERENCES
    assert stages_that_would_run(home, records) == []
    ran = {}
    for name, path, ref in [(name, *item) for name, refs in found.items() for item in refs.items()]:
        for n, victim in enumerate(files_of(home, ref)):
            content = victim.read_bytes()
            for damage in damaged(content):
                victim.unlink()
                if damage is not None:
                    victim.write_bytes(damage)
                ran[name, path, n, "delete" if damage is None else "flip"] = stages_that_would_run(home, records)
                victim.unlink(missing_ok=True)
                victim.write_bytes(content)
    assert {place: stages for place, stages in ran.items() if stages != [place[0]]} == {}
    assert stages_that_would_run(home, records) == []

    for stage, number in {"metrics": '"accuracy": ', "validate": '"max_abs_error": '}.items():
        record = home / "store" / record_path(stage, result.stages[stage].cache_key)
        text = record.read_text()
        assert number in text
        record.write_text(text.replace(number, f"{number}-9"))
    again = rerun()
    assert that_ran(again) == ["metrics", "validate"]
    assert again.metrics == result.metrics
    assert again.validation.max_abs_error >= 0


@pytest.mark.parametrize(
    ("stage", "artifact", "damage", "expected"),
    [
        ("export", "bundle", "delete", ["export"]),
        # A training that is made again leaves the same model, but new times in its records: these are collected.
        ("train", "records", "flip", ["train", "metrics"]),
    ],
)
def test_a_damaged_artifact_reruns_exactly_its_stage(rerun, result, home, stage, artifact, damage, expected):
    path = object_path(home, product_of(result, home, stage)[artifact])
    path.chmod(0o644)
    path.unlink() if damage == "delete" else path.write_bytes(b"x" + path.read_bytes()[1:])
    assert that_ran(rerun()) == expected


def test_a_staged_file_that_is_damaged_is_staged_again(rerun, home):
    (staged,) = (home / "datasets").glob("*/data/points.npy")
    staged.parent.chmod(0o755)
    staged.chmod(0o644)
    staged.write_bytes(staged.read_bytes()[:-1] + b"\xff")
    assert that_ran(rerun()) == ["stage"]


def test_refresh_and_off(rerun):
    assert that_ran(rerun(policies={"export": StagePolicy(cache="refresh")})) == ["export"]
    assert that_ran(rerun(policies={"metrics": StagePolicy(cache="off")})) == ["metrics"]
    assert that_ran(rerun()) == []


def test_the_local_copy_of_the_model_is_made_again(rerun, home):
    first = rerun()
    assert Path(first.onnx_path).is_relative_to(home)
    content = Path(first.onnx_path).read_bytes()
    shutil.rmtree(Path(first.onnx_path).parent)
    assert Path(rerun().onnx_path).read_bytes() == content


def test_a_store_that_has_moved_keeps_its_cache(rerun, home, tmp_path):
    shutil.move(home / "store", tmp_path / "there")
    moved = rerun(store=str(tmp_path / "there"))
    assert that_ran(moved) == []
    assert moved.model_uri == f"file://{tmp_path}/there/models/linear/1"


def test_a_damaged_file_of_the_source_is_made_whole_and_nothing_runs(rerun, result, home):
    source = object_path(home, product_of(result, home, "train")["source"])
    source.write_bytes(b"damaged")
    assert set(statuses(rerun(export=None)).values()) == {"cached"}
