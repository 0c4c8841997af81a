"""A champion whose bundle is damaged in the store."""

import pytest

from tests.unit.onnx_models import exported, images, logits, make_context, npz, program, put_bundle, put_files
from trainyard.tasks.artifacts.products import Champion
from trainyard.tasks.errors import ValidationFailedError
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.validate import validate_model

pytestmark = pytest.mark.usefixtures("forked_models")


@pytest.fixture
def damaged(tmp_path):
    """A champion one of whose objects is gone; gives it, and a function that validates another model against it."""
    context = make_context(tmp_path)
    store = context.store
    files = exported(program(seed=2), True)[1]
    bundle = put_files(context, tmp_path / "champion", files)
    listing = store.list_tree(bundle).entries
    for path, data in files.items():
        (store.root / "models/digits/3/writer" / path).write_bytes(data)
    (sha256,) = (entry.sha256 for entry in listing if entry.path == "model.onnx")
    (store.root / f"objects/{sha256[:2]}/{sha256}").delete()
    x = images()
    samples = npz(images=x, labels=logits(program(), x).argmax(1))
    outputs = put_files(context, tmp_path / "outputs", {"model.pt2": program(), "validation_samples.npz": samples})
    challenger = put_bundle(context, tmp_path, program())

    def validate(champion):
        return validate_model(OrtValidation(champion_margin=0.5), challenger, outputs, context, champion=champion)

    return Champion(version=3, bundle=bundle, folder="models/digits/3/writer", files=listing), validate, store


def test_the_registry_has_the_same_bytes(damaged):
    champion, validate, _ = damaged
    assert validate(champion).champion_version == 3


@pytest.mark.parametrize("damage", ["swapped", "missing", "other files", "no copy"])
def test_without_a_whole_copy_a_check_fails_and_says_what_to_do(damaged, damage):
    champion, validate, store = damaged
    copy = store.root / champion.folder / "model.onnx"
    if damage == "swapped":
        copy.write_bytes(b"swapped")
    elif damage == "missing":
        copy.delete()
    else:
        changes = {"files": champion.files[1:]} if damage == "other files" else {"files": (), "folder": None}
        champion = champion.model_copy(update=changes)
    found = {"swapped": "model.onnx is damaged, too", "missing": "has no model.onnx either"}.get(
        damage, "names no copy"
    )
    with pytest.raises(ValidationFailedError, match=rf"(?s)1 of \d+ checks failed.*{found}.*trainyard models rollback"):
        validate(champion)
