"""What a registered version holds, what is refused, and when one is registered anew."""

import pickle

import pytest

from tests.unit.registry.proofs import LINEAGE, proven, version_folder
from trainyard.tasks.artifacts.products import OnnxBundle
from trainyard.tasks.caching.stage import StageContext, run_stage
from trainyard.tasks.errors import ArtifactDamagedError, PipelineError, RegistrationError
from trainyard.tasks.registry.register import register_model, verify_registered
from trainyard.tasks.registry.task import REGISTER, registration_components
from trainyard.tasks.registry.versions import list_versions, read_manifest


def put_files(context, folder, files):
    """A tree of the given files, by name."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return context.store.put_tree(folder)


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
    folder = read_manifest(context.store, "digits", 2).folder
    (context.store.root / f"models/digits/2/{folder}/model.onnx").delete()
    with pytest.raises(PipelineError, match="version 2"):
        verify_registered(models[1], context)
