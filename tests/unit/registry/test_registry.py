import json
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from trainyard.tasks.artifacts.products import Lineage, OnnxBundle, ValidatedModel
from trainyard.tasks.caching.stage import StageContext, run_stage
from trainyard.tasks.errors import ArtifactDamagedError, PipelineError, RegistrationError, StorageNotFoundError
from trainyard.tasks.models.bundle import BundleDescription, describe_files, write_description
from trainyard.tasks.registry.aliases import champion_of, list_moves, resolve
from trainyard.tasks.registry.compare import compare_versions
from trainyard.tasks.registry.load import load_model
from trainyard.tasks.registry.promote import promote, roll_back
from trainyard.tasks.registry.register import register_model, verify_registered
from trainyard.tasks.registry.task import REGISTER, registration_components
from trainyard.tasks.registry.versions import list_versions, read_manifest
from trainyard.tasks.specs.results import ValidationSummary

ROOT = Path(__file__).resolve().parents[3]
LINEAGE = Lineage(
    source_sha256="a" * 64,
    datasets={"s3://data/digits": "b" * 64},
    arguments=("--data-dir", "s3://data/digits", "--epochs", "3"),
    topology="1x2 mpi",
    environment={"torch": "2.13.0"},
    metrics={"accuracy": 0.97},
    pipeline_run="run-1",
)


@pytest.fixture
def context(tmp_path):
    return StageContext(store_url=str(tmp_path / "store"), home=tmp_path / "home")


def put_files(context, folder, files):
    """A tree of the given files, by name."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return context.store.put_tree(folder)


def proven(context, folder, passed=True, weights=b"weights", champion_version=None, **summary):
    """A bundle and the verdict on it."""
    folder.mkdir(parents=True)
    files = {"model.onnx": b"model" * 1000, "model.onnx.data": weights * 1000, "signature.json": b"{}"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    description = BundleDescription(
        files=describe_files(folder), kind="program", was_training=False, opset=20, attempts=(), provenance={}
    )
    write_description(description, folder)
    bundle = OnnxBundle(bundle=context.store.put_tree(folder), opset=20, model_file="model.pt2")
    validated = ValidatedModel(
        report=context.store.put_bytes(b'{"checks": []}'),
        bundle_sha256=bundle.bundle.sha256,
        verdict_sha256="c" * 64,
        summary=ValidationSummary(
            passed=passed, max_abs_error=0, max_rel_error=0, agreement=1, num_samples=1, latency_ms=1, **summary
        ),
        page=context.store.put_bytes(b"<html>"),
        champion_version=champion_version,
    )
    return bundle, validated


@pytest.fixture
def proof(context, tmp_path):
    return proven(context, tmp_path / "bundle")


def version_folder(context, version):
    """Where the files of a version are."""
    folder = read_manifest(context.store, "digits", version).folder
    return (context.store.root / f"models/digits/{version}/{folder}").local_path


def files_below(context, path="models"):
    root = (context.store.root / path).local_path
    return sorted(found.relative_to(root).as_posix() for found in root.rglob("*") if found.is_file())


def test_a_version_holds_the_model_its_proof_and_its_lineage(context, proof):
    bundle, validated = proof
    model = register_model("digits", bundle, validated, LINEAGE, context)
    assert (model.name, model.version) == ("digits", 1)
    assert model.uri == (context.store.root / "models/digits/1").url
    folder = version_folder(context, 1)
    assert (folder / "model.onnx.data").read_bytes() == b"weights" * 1000
    assert (folder / "report.json").read_bytes() == b'{"checks": []}'
    manifest = read_manifest(context.store, "digits", 1)
    assert manifest.lineage == LINEAGE
    assert manifest.bundle == bundle.bundle
    proofs = {"report.json", "report.html"}
    assert {e.path for e in manifest.files} == {
        "bundle.json",
        "model.onnx",
        "model.onnx.data",
        "signature.json",
    } | proofs
    verify_registered(model, context)


def test_versions_count_up_a_model_at_a_time(context, proof):
    for name in ("digits", "digits", "letters"):
        register_model(name, *proof, LINEAGE, context)
    assert list_versions(context.store, "digits") == [1, 2]
    assert list_versions(context.store, "letters") == [1]
    assert list_versions(context.store, "nothing") == []


@pytest.mark.parametrize("name", ["", "..", ".hidden", "Digits", "a/b", "a b", "-x", "ä", "a\n"])
def test_a_name_that_is_no_plain_folder_is_refused(context, proof, name):
    with pytest.raises(RegistrationError, match="cannot be a model's name") as caught:
        register_model(name, *proof, LINEAGE, context)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert not (context.store.root / "models").exists()


def test_nothing_unproven_is_registered(context, tmp_path, proof):
    with pytest.raises(RegistrationError, match="did not pass validation"):
        register_model("digits", *proven(context, tmp_path / "failed", passed=False), LINEAGE, context)
    other = OnnxBundle(bundle=put_files(context, tmp_path / "other", {"m": b""}), opset=20, model_file="m")
    with pytest.raises(RegistrationError, match="verdict is about the bundle"):
        register_model("digits", other, proof[1], LINEAGE, context)
    assert list_versions(context.store, "digits") == []


def test_what_a_killed_writer_left_is_no_version_reserves_no_number_and_is_removed(context, proof):
    register_model("digits", *proof, LINEAGE, context)
    for version in (1, 2):  # one that would have lost, one that would have won
        left = (context.store.root / f"models/digits/{version}/dead/model.onnx").local_path
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half")
    assert list_versions(context.store, "digits") == [1]
    assert register_model("digits", *proof, LINEAGE, context).version == 2
    assert not [path for path in files_below(context) if "dead" in path]
    for version in (1, 2):
        assert version_folder(context, version).is_dir()


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.registry.test_registry import LINEAGE, proven
from trainyard.tasks.artifacts.filesystem import Location
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.models.bundle import BundleDescription, describe_files, write_description
from trainyard.tasks.registry.aliases import champion_of, list_moves, resolve
from trainyard.tasks.registry.compare import compare_versions
from trainyard.tasks.registry.load import load_model
from trainyard.tasks.registry.promote import promote, roll_back
from trainyard.tasks.registry.register import register_model

context = StageContext(store_url=sys.argv[1], home=Path(sys.argv[2]))
proof = proven(context, Path(sys.argv[2]) / "bundle")
writes = iter(range(int(sys.argv[3])))

def counted(original):
    def write(self, *arguments):
        if "/models/" in self.url and next(writes, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *arguments)
    return write

Location.upload, Location.create_bytes = counted(Location.upload), counted(Location.create_bytes)
register_model("digits", *proof, LINEAGE, context)
"""


@pytest.mark.parametrize("num_writes", [1, 6])
def test_a_registration_that_is_killed_leaves_no_version_and_no_number_taken(context, proof, tmp_path, num_writes):
    """Killed after the first file, and when all files but the manifest are there."""
    command = [sys.executable, "-c", KILLED, context.store_url, str(tmp_path / "killed"), str(num_writes)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(files_below(context)) == num_writes
    assert list_versions(context.store, "digits") == []
    assert register_model("digits", *proof, LINEAGE, context).version == 1
    assert {path.split("/")[0] for path in files_below(context, "models/digits/1")} == {
        "manifest.json",
        version_folder(context, 1).name,
    }


def test_a_registration_that_fails_leaves_no_file(context, proof):
    bundle, validated = proof
    report = validated.report
    (context.store.root / f"objects/{report.sha256[:2]}/{report.sha256}").delete()
    with pytest.raises(ArtifactDamagedError):
        register_model("digits", bundle, validated, LINEAGE, context)
    assert [path for path in (context.store.root / "models").local_path.rglob("*") if path.is_file()] == []


def register_three(store_url, home, folder):
    """For processes of their own."""
    context = StageContext(store_url=store_url, home=home)
    bundle, validated = proven(context, folder)
    return [register_model("digits", bundle, validated, LINEAGE, context) for _ in range(3)]


@pytest.mark.parametrize("workers", ["processes", "threads"])
def test_registrations_at_once_all_succeed_with_versions_of_their_own(context, tmp_path, workers):
    pool = {
        "processes": lambda: ProcessPoolExecutor(4, mp_context=get_context("spawn")),
        "threads": lambda: ThreadPoolExecutor(8),
    }[workers]
    with pool() as executor:
        futures = [
            executor.submit(register_three, context.store_url, context.home, tmp_path / f"bundle-{n}") for n in range(8)
        ]
        models = [model for future in futures for model in future.result()]
    assert sorted(model.version for model in models) == list(range(1, 25))
    assert list_versions(context.store, "digits") == list(range(1, 25))
    for model in models:
        verify_registered(model, context)


def damage_model(folder):
    (folder / "model.onnx").write_bytes(b"x" * 5000)


def delete_weights(folder):
    (folder / "model.onnx.data").unlink()


def damage_manifest(folder):
    (folder.parent / "manifest.json").write_text("{}")


def delete_manifest(folder):
    (folder.parent / "manifest.json").unlink()


@pytest.mark.parametrize("damage", [damage_model, delete_weights, damage_manifest, delete_manifest])
def test_a_damaged_version_is_noticed_and_registered_again(context, proof, damage):
    def run():
        components = registration_components("digits", *proof, LINEAGE)
        return run_stage(REGISTER, components, lambda key: register_model("digits", *proof, LINEAGE, context), context)

    first = run()
    assert (first.status, run().status) == ("ran", "cached")
    damage(version_folder(context, 1))
    with pytest.raises(ArtifactDamagedError):
        verify_registered(first.product, context)
    again = run()
    expected = 1 if damage is delete_manifest else 2  # without its manifest it is no version
    assert (again.status, again.product.version) == ("ran", expected)
    assert run().status == "cached"


def test_the_key_follows_what_decides_a_version_and_not_who_ran_it_when(context, proof):
    def key(**changes):
        lineage = LINEAGE.model_copy(update=changes)
        return REGISTER.key(registration_components("digits", *proof, lineage)).sha256

    assert key() == key(pipeline_run="run-2") == key(metrics={"samples_per_second": 12.5})
    moved = {"datasets": {"file:///d": "b" * 64}, "arguments": ("--data-dir", "file:///d", "--epochs", "3")}
    assert key() == key(**moved)
    changes = [
        {"source_sha256": "d" * 64},
        {"datasets": {"s3://data/digits": "e" * 64}},
        {"arguments": ("--data-dir", "s3://data/digits", "--epochs", "4")},
        {"topology": "1x1"},
        {"environment": {"torch": "2.14.0"}},
    ]
    assert len({key(), *(key(**change) for change in changes)}) == 6


def test_a_store_that_is_no_local_folder(tmp_path):
    context = StageContext(store_url=f"memory://{tmp_path.name}", home=tmp_path)
    proof = proven(context, tmp_path / "bundle")
    models = [register_model("digits", *proof, LINEAGE, context) for _ in range(2)]
    assert [model.version for model in models] == list_versions(context.store, "digits") == [1, 2]
    verify_registered(models[1], context)
    folder = read_manifest(context.store, "digits", 2).folder
    (context.store.root / f"models/digits/2/{folder}/model.onnx").delete()
    with pytest.raises(PipelineError, match="version 2"):
        verify_registered(models[1], context)


def registered(context, tmp_path, accuracy=None, samples="d" * 64, **changes):
    """Register a version with weights of its own; gives its number."""
    summary = changes if accuracy is None else {"metrics": {"accuracy": accuracy}, "samples_sha256": samples}
    folder = tmp_path / f"bundle-{time.monotonic_ns()}"
    bundle, validated = proven(context, folder, weights=folder.name.encode(), **{**summary, **changes})
    return register_model("digits", bundle, validated, LINEAGE, context).version


def test_the_first_version_is_champion_and_a_later_one_only_if_it_was_compared_with_it(context, tmp_path):
    assert champion_of(context.store, "digits") is None
    assert registered(context, tmp_path, 0.9) == 1
    registered(context, tmp_path, 0.99)
    assert champion_of(context.store, "digits") == 1
    registered(context, tmp_path, 0.99, champion_version=1)
    assert champion_of(context.store, "digits") == 3
    registered(context, tmp_path, 0.99, champion_version=1)  # compared with one that is champion no more
    assert champion_of(context.store, "digits") == 3
    assert resolve(context.store, "digits", "latest") == 4
    assert [move.version for move in list_moves(context.store, "digits")] == [1, 3]


def test_promotion_goes_through_the_gate_and_back_again(context, tmp_path):
    store = context.store
    for accuracy in (0.9, 0.8, 0.95):
        registered(context, tmp_path, accuracy)
    other = registered(context, tmp_path, 0.99, samples="e" * 64)
    with pytest.raises(RegistrationError, match=r"worse on the same samples \(accuracy 0.8000 against 0.9000\)"):
        promote(store, "digits", 2)
    with pytest.raises(RegistrationError, match=r"not measured on the same labelled samples.*--override"):
        promote(store, "digits", other)
    with pytest.raises(RegistrationError, match="is the champion already"):
        promote(store, "digits", 1)
    assert champion_of(store, "digits") == 1
    assert "0.9500 against 0.9000" in promote(store, "digits", 3).reason
    assert "new labels (although they were not" in promote(store, "digits", other, override="new labels").reason
    assert [champion_of(store, "digits"), roll_back(store, "digits", "x").version] == [4, 3]
    assert roll_back(store, "digits", "x").version == champion_of(store, "digits") == 1
    with pytest.raises(RegistrationError, match="no version was it before"):
        roll_back(store, "digits", "x")
    (version_folder(context, 3) / "model.onnx").write_bytes(b"swapped")
    with pytest.raises(ArtifactDamagedError, match="is damaged"):
        promote(store, "digits", 3)


def test_promotion_knows_which_way_is_better(context, tmp_path):
    def measured(rmse, mae, **more):
        summary = {"metrics": {"rmse": rmse, "mae": mae}, "samples_sha256": "d" * 64, **more}
        return registered(context, tmp_path, **summary)

    measured(0.5, 0.3)
    worse, better = measured(0.6, 0.2), measured(0.4, 0.2)
    with pytest.raises(RegistrationError, match=r"worse .*\(mae 0.2000 .* rmse 0.6000 against 0.5000"):
        promote(context.store, "digits", worse)
    assert promote(context.store, "digits", better).version == better
    by_one = measured(0.3, 0.9, compared_by=("rmse",))
    assert "(rmse 0.3000 against 0.4000)" in promote(context.store, "digits", by_one).reason
    with pytest.raises(RegistrationError, match="r2 was not measured of both"):
        promote(context.store, "digits", measured(0.1, 0.1, compared_by=("r2",)))


def test_of_moves_at_once_each_is_decided_on_what_is_then_true(context, tmp_path):
    for accuracy in (0.5, 0.6, 0.7, 0.8, 0.9):
        registered(context, tmp_path, accuracy)

    def try_promote(version):
        try:
            return promote(context.store, "digits", version).version
        except RegistrationError:
            return None

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(try_promote, [2, 3, 4, 5]))
    moves = list_moves(context.store, "digits")
    assert [move.number for move in moves] == list(range(1, len(moves) + 1))
    assert [move.version for move in moves] == sorted(move.version for move in moves)  # never to a worse one
    assert champion_of(context.store, "digits") == 5


def test_a_model_is_loaded_whole_or_not_at_all(context, tmp_path):
    registered(context, tmp_path)
    folder = load_model("digits", "champion", context)
    assert sorted(path.name for path in folder.iterdir()) == [
        "bundle.json",
        "model.onnx",
        "model.onnx.data",
        "signature.json",
    ]
    (folder / "model.onnx.data").write_bytes(b"swapped")  # a copy that was changed is fetched again
    assert load_model("digits", 1, context) == folder
    assert b"swapped" not in (folder / "model.onnx.data").read_bytes()
    registered(context, tmp_path)
    (version_folder(context, 2) / "model.onnx.data").write_bytes(b"swapped")
    with pytest.raises(ArtifactDamagedError, match=r"model.onnx.data was swapped or damaged"):
        load_model("digits", "latest", context)
    description = version_folder(context, 2) / "bundle.json"
    text = description.read_text()
    description.write_text(f"{text}\n")  # says the same of the other files
    with pytest.raises(ArtifactDamagedError, match=r"bundle.json was swapped or damaged"):
        load_model("digits", "latest", context)
    description.write_text(text)
    (version_folder(context, 2) / "model.onnx.data").unlink()
    with pytest.raises(ArtifactDamagedError, match=r"model.onnx.data is missing"):
        load_model("digits", 2, context)
    assert not list(context.home.glob("registered/.*"))  # nothing half fetched stays
    assert len(list((context.home / "registered").iterdir())) == 1


def test_a_manifest_that_names_other_files_is_noticed(context, tmp_path):
    registered(context, tmp_path)
    path = version_folder(context, 1).parent / "manifest.json"
    manifest = json.loads(path.read_text())
    (entry,) = (entry for entry in manifest["files"] if entry["path"] == "model.onnx.data")
    entry["sha256"] = "f" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactDamagedError, match="lists files of the bundle"):
        load_model("digits", 1, context)


def test_what_is_not_there_is_told_with_what_is(context, tmp_path):
    with pytest.raises(StorageNotFoundError, match="no model 'digits'"):
        load_model("digits", "latest", context)
    registered(context, tmp_path)
    with pytest.raises(StorageNotFoundError, match="no version 7 of 'digits'; versions: 1"):
        load_model("digits", 7, context)
    with pytest.raises(RegistrationError, match=r"'newest' is no version .*'champion' or 'latest'"):
        resolve(context.store, "digits", "newest")


def test_two_versions_differ_in_what_differs(context, tmp_path):
    registered(context, tmp_path, 0.9)
    registered(context, tmp_path, 0.8)
    first, second = (read_manifest(context.store, "digits", version) for version in (1, 2))
    different = {found.what: (found.before, found.after) for found in compare_versions(first, second)}
    assert different["validated accuracy"] == ("0.9", "0.8")
    assert set(different) == {"validated accuracy", "file model.onnx.data", "file bundle.json"}
