"""From the outputs of a training run to an ONNX bundle in the store."""

import logging
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from trainyard.tasks.artifacts.digests import canonical_json
from trainyard.tasks.artifacts.products import OnnxBundle
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.export.exporter import write_onnx
from trainyard.tasks.export.find import find_program
from trainyard.tasks.models.layout import SIGNATURE_FILE
from trainyard.tasks.models.program import load_program
from trainyard.tasks.specs.export import OnnxExport

log = logging.getLogger(__name__)


def export_onnx(
    settings: OnnxExport, outputs: ArtifactRef, context: StageContext, left_outside: Sequence[str] = ()
) -> OnnxBundle:
    """Export the program that training saved; equal outputs and settings give an equal bundle, byte for byte.

    Args:
        settings: Which program, and how.
        outputs: Tree: what the script wrote below ``outputs/`` (see ``trainyard.tasks.models.program``).
        context: Where the store is.
        left_outside: Files that the script wrote elsewhere: named where there is no model.

    Returns:
        A tree with ``model.onnx``, its external data if any, and ``signature.json``.

    Raises:
        ModelNotFoundError: The outputs hold no program, or several and the settings name none.
        ExportError: The program cannot be loaded, or not be expressed in ONNX as asked.
        ArtifactDamagedError: The outputs are no longer whole; a retry helps once training ran again.
    """
    store = context.store
    model_file = find_program(settings, store.list_tree(outputs).entries, left_outside)
    with tempfile.TemporaryDirectory(prefix="trainyard-export-") as scratch:
        program_path = store.materialize(store.find_entry(outputs, model_file), Path(scratch) / "program.pt2")
        bundle_path = Path(scratch) / "bundle"
        bundle_path.mkdir()
        program = load_program(program_path, shown_as=model_file)
        signature, opset = write_onnx(program, settings, _provenance(outputs, model_file), bundle_path)
        (bundle_path / SIGNATURE_FILE).write_bytes(canonical_json(signature.model_dump(mode="json")))
        bundle = store.put_tree(bundle_path)
    log.info("Exported %s as ONNX opset %d, %s bytes", model_file, opset, f"{bundle.num_bytes:,}")
    return OnnxBundle(bundle=bundle, opset=opset, model_file=model_file)


def _provenance(outputs: ArtifactRef, model_file: str) -> dict[str, str]:
    """What the model says of itself: only what decides it, so no times and no run ids."""
    libraries = {f"trainyard.{name}": version(name) for name in ("torch", "onnx", "onnxscript")}
    return {"trainyard.outputs_sha256": outputs.sha256, "trainyard.model_file": model_file, **libraries}
