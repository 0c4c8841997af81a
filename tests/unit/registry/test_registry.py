import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from trainyard.tasks.artifacts.products import Lineage, OnnxBundle, ValidatedModel
from trainyard.tasks.caching.stage import StageContext, run_stage
from trainyard.tasks.errors import ArtifactDamagedError, PipelineError, RegistrationError
from trainyard.tasks.registry.register import register_model, verify_registered
from trainyard.tasks.registry.task import REGISTER, registration_components
from trainyard.tasks.registry.versions import list_versions, read_manifest, reserve_version
from trainyard.tasks.specs.results import ValidationSummary

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


def proven(context, folder, passed=True):
    """A bundle and the verdict on it."""
    files = {"model.onnx": b"model" * 1000, "model.onnx.data": b"weights" * 1000, "signature.json": b"{}"}
    bundle = OnnxBundle(bundle=put_files(context, folder, files), opset=20, model_file="model.pt2")
    validated = ValidatedModel(
        report=context.store.put_bytes(b'{"checks": []}'),
        bundle_sha256=bundle.bundle.sha256,
        verdict_sha256="c" * 64,
        summary=ValidationSummary(
            passed=passed, max_abs_error=0, max_rel_error=0, agreement=1, num_samples=1, latency_ms=1
        ),
    )
    return bundle, validated


@pytest.fixture
def proof(context, tmp_path):
    return proven(context, tmp_path / "bundle")


def version_folder(context, version):
    return (context.store.root / f"models/digits/{version}").local_path


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
    assert {e.path for e in manifest.files} == {"model.onnx", "model.onnx.data", "signature.json", "report.json"}
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


def test_a_version_being_written_is_not_there_yet(context, proof):
    assert reserve_version(context.store, "digits", "somebody") == 1
    (version_folder(context, 1) / "model.onnx").write_bytes(b"half")
    assert list_versions(context.store, "digits") == []
    assert register_model("digits", *proof, LINEAGE, context).version == 2
    assert list_versions(context.store, "digits") == [2]


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
    (folder / "manifest.json").write_text("{}")


def delete_manifest(folder):
    (folder / "manifest.json").unlink()


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
    assert (again.status, again.product.version) == ("ran", 2)
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
    (context.store.root / "models/digits/2/model.onnx").delete()
    with pytest.raises(PipelineError, match="version 2"):
        verify_registered(models[1], context)
