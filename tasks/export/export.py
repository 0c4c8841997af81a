"""From the outputs of a training run to an ONNX bundle in the store."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from trainyard.tasks.artifacts.digests import canonical_json
from trainyard.tasks.artifacts.products import OnnxBundle
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import ExportError
from trainyard.tasks.export.child import EXPORT, MODULE, exported_from
from trainyard.tasks.export.exporter import Exported, write_onnx
from trainyard.tasks.export.find import find_model, is_program_name, not_a_model
from trainyard.tasks.export.notes import find_notes
from trainyard.tasks.models.bundle import BundleDescription, describe_files, write_description
from trainyard.tasks.models.examples import example_inputs
from trainyard.tasks.models.kinds import ModelKind, kind_of
from trainyard.tasks.models.layout import SIGNATURE_FILE
from trainyard.tasks.models.loading import load_request, model_process, require_loadable
from trainyard.tasks.models.program import load_program
from trainyard.tasks.models.training_mode import require_evaluation
from trainyard.tasks.runtime.scratch import scratch_prefix
from trainyard.tasks.specs.export import OnnxExport

log = logging.getLogger(__name__)


def export_onnx(
    settings: OnnxExport,
    outputs: ArtifactRef,
    context: StageContext,
    *,
    source: ArtifactRef | None = None,
    origin: Mapping[str, str] | None = None,
    left_outside: Sequence[str] = (),
) -> OnnxBundle:
    """Export the model that training saved; equal outputs and settings give an equal bundle, byte for byte.

    A ``torch.export`` program is exported here; everything else is loaded in a process of its own.

    Args:
        settings: Which model, and how.
        outputs: Tree: what the script wrote below ``outputs/``.
        context: Where the store is.
        source: Tree: the source snapshot, for models that need its classes.
        origin: More facts for the model's metadata, such as digests of source and data; they decide nothing else.
        left_outside: Files that the script wrote elsewhere: named where there is no model.

    Returns:
        A tree with ``model.onnx``, its external data if any, ``signature.json``, ``bundle.json``, and labels and
        preprocessing notes where there are any.

    Raises:
        ModelNotFoundError: The outputs hold no model, or several and the settings name none.
        ExportError: The model cannot be loaded, or not be expressed in ONNX as asked.
        ArtifactDamagedError: The outputs are no longer whole; a retry helps once training ran again.
    """
    store = context.store
    entries = store.list_tree(outputs).entries
    model_file = find_model(settings, entries, left_outside)
    provenance = {**_provenance(outputs, model_file), **(origin or {})}
    with tempfile.TemporaryDirectory(prefix=scratch_prefix("export")) as scratch:
        path = store.materialize(store.find_entry(outputs, model_file), Path(scratch) / "model.pt2")
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        try:
            kind = kind_of(path, model_file)
        except ExportError as error:
            if settings.model_file is None and not is_program_name(model_file):
                raise not_a_model(error, entries, left_outside) from error
            raise
        if kind == "program":
            exported = _export_program(path, model_file, settings, provenance, folder)
        else:
            exported = _export_elsewhere(path, model_file, kind, settings, provenance, folder, outputs, source, store)
        (folder / SIGNATURE_FILE).write_bytes(canonical_json(exported.signature.model_dump(mode="json")))
        for name, data in find_notes(settings, outputs, store, exported.signature).items():
            (folder / name).write_bytes(data)
        for attempt in exported.attempts[:-1]:
            log.warning("%s failed: %s", attempt.description, attempt.error)
        _describe(folder, kind, exported, provenance)
        bundle = store.put_tree(folder)
    log.info(
        "Exported %s with the %s as ONNX opset %d, %s bytes",
        model_file,
        exported.attempts[-1].description,
        exported.opset,
        f"{bundle.num_bytes:,}",
    )
    return OnnxBundle(
        bundle=bundle,
        opset=exported.opset,
        model_file=model_file,
        settings=settings,
        attempts=exported.attempts,
    )


def _export_program(
    path: Path, model_file: str, settings: OnnxExport, provenance: dict[str, str], folder: Path
) -> Exported:
    program = load_program(path, shown_as=model_file)
    require_evaluation(program.training_operations, model_file, "Call model.eval() before torch.export.export.")
    return write_onnx(program, settings, provenance, folder)


def _export_elsewhere(
    path: Path,
    model_file: str,
    kind: ModelKind,
    settings: OnnxExport,
    provenance: dict[str, str],
    folder: Path,
    outputs: ArtifactRef,
    source: ArtifactRef | None,
    store: ArtifactStore,
) -> Exported:
    require_loadable(kind, settings, source, model_file)
    example = example_inputs(settings, outputs, store)
    request = {**load_request(path, kind, settings), "folder": str(folder), "provenance": provenance}
    with model_process(MODULE, source, store) as process:
        return exported_from(process.ask(EXPORT, request, example)[0])


def _describe(folder: Path, kind: ModelKind, exported: Exported, provenance: dict[str, str]) -> None:
    if exported.was_training:
        log.warning("The model was saved in training mode; it was exported in evaluation mode.")
    description = BundleDescription(
        files=describe_files(folder),
        kind=kind,
        was_training=exported.was_training,
        opset=exported.opset,
        attempts=exported.attempts,
        provenance=provenance,
    )
    write_description(description, folder)


def _provenance(outputs: ArtifactRef, model_file: str) -> dict[str, str]:
    """What the model says of itself: only what decides it, so no times."""
    libraries = {f"trainyard.{name}": version(name) for name in ("torch", "onnx", "onnxscript")}
    return {"trainyard.outputs_sha256": outputs.sha256, "trainyard.model_file": model_file, **libraries}
