"""Registered models are read whole, and told apart."""

import json

import pytest

from tests.unit.registry.proofs import registered, version_folder
from trainyard.tasks.errors import ArtifactDamagedError, RegistrationError, StorageNotFoundError
from trainyard.tasks.models.bundle import BundleDescription, describe_files, verify_bundle, write_description
from trainyard.tasks.registry.aliases import resolve
from trainyard.tasks.registry.compare import compare_versions
from trainyard.tasks.registry.load import find_champion, load_model
from trainyard.tasks.registry.promote import roll_back
from trainyard.tasks.registry.versions import read_manifest


def described_anew(folder):
    """Make the description of a changed bundle one that holds; gives its bytes."""
    description = BundleDescription.model_validate_json((folder / "bundle.json").read_bytes())
    write_description(description.model_copy(update={"files": describe_files(folder)}), folder)
    verify_bundle(folder)
    return (folder / "bundle.json").read_bytes()


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
    (folder / "model.onnx.data").write_bytes(b"swapped")  # also if it is described as what it now is
    whole = described_anew(folder)
    assert load_model("digits", 1, context) == folder
    assert b"swapped" not in (folder / "model.onnx.data").read_bytes()
    assert (folder / "bundle.json").read_bytes() != whole
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


def test_a_champion_that_cannot_be_read_says_what_to_do(context, tmp_path):
    registered(context, tmp_path, 0.9)
    registered(context, tmp_path, 0.9, champion_version=1)
    found = find_champion("digits", context.store, "0" * 64)
    assert found.version == 2 and (context.store.root / found.folder / found.files[0].path).exists()
    (version_folder(context, 2).parent / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactDamagedError, match=r"Version 2 .* trainyard models rollback digits --reason"):
        find_champion("digits", context.store, "0" * 64)
    assert roll_back(context.store, "digits", "damaged").version == 1
    assert find_champion("digits", context.store, "0" * 64).version == 1
