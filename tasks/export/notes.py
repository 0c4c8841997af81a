"""What a bundle says beside the model: names of the classes, and what to do with raw data."""

import json

from trainyard.tasks.artifacts.digests import canonical_json
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ExportError
from trainyard.tasks.models.layout import LABELS_FILE, PREPROCESSING_FILE
from trainyard.tasks.models.signature import ModelSignature
from trainyard.tasks.specs.export import OnnxExport

_LABELS_FILES = ("labels.json", "labels.txt")
_PREPROCESSING_FILES = ("preprocessing.md", "preprocessing.txt", "preprocessing.json")


def find_notes(
    settings: OnnxExport, outputs: ArtifactRef, store: ArtifactStore, signature: ModelSignature
) -> dict[str, bytes]:
    """The files to put into the bundle, by name.

    Raises:
        ExportError: The labels are not a list of names, or not one a class.
    """
    files = {}
    labels = list(settings.labels) if settings.labels is not None else _saved_labels(outputs, store)
    if labels is not None:
        _require_one_a_class(labels, signature)
        files[LABELS_FILE] = canonical_json(labels)
    notes = settings.preprocessing
    text = notes.encode() if notes is not None else _first(outputs, store, _PREPROCESSING_FILES)[1]
    if text is not None:
        files[PREPROCESSING_FILE] = text
    return files


def _saved_labels(outputs: ArtifactRef, store: ArtifactStore) -> list[str] | None:
    name, data = _first(outputs, store, _LABELS_FILES)
    if data is None:
        return None
    try:
        labels = json.loads(data) if name.endswith(".json") else data.decode().split("\n")
    except ValueError as error:
        raise ExportError(f"{name} in the run's outputs cannot be read: {error}.") from error
    if not isinstance(labels, list) or not all(isinstance(label, (str, int)) for label in labels):
        raise ExportError(f"{name} in the run's outputs must be a JSON list with a name a class.")
    return [str(label) for label in labels if label != ""]


def _first(outputs: ArtifactRef, store: ArtifactStore, names: tuple[str, ...]) -> tuple[str, bytes | None]:
    for name in names:
        try:
            return name, store.read_entry(outputs, name)
        except KeyError:
            continue
    return "", None


def _require_one_a_class(labels: list[str], signature: ModelSignature) -> None:
    if signature.classifier_output is None:
        return
    tensor = signature.outputs[signature.classifier_output]
    if tensor.num_classes != len(labels):
        raise ExportError(
            f"There are {len(labels)} labels, but output {tensor.name!r} has {tensor.num_classes} classes: give one "
            "label a class, in the order of the scores (OnnxExport.labels, or outputs/labels.json)."
        )
