"""Registered models are read whole, and told apart."""

import json

import pytest

from tests.unit.registry.proofs import registered, version_folder
from trainyard.tasks.errors import ArtifactDamagedError, RegistrationError, StorageNotFoundError
from trainyard.tasks.registry.aliases import resolve
from trainyard.tasks.registry.compare import compare_versions
from trainyard.tasks.registry.load import load_model
from trainyard.tasks.registry.versions import read_manifest


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
