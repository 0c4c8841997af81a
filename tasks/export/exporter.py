"""The dynamo ONNX exporter, and the checks of what it wrote. The one module that calls it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trainyard.tasks.errors import ExportError
from trainyard.tasks.models.layout import MODEL_FILE
from trainyard.tasks.models.program import TrainedProgram, quiet_torch
from trainyard.tasks.models.signature import BATCH_AXIS, ModelSignature, TensorSignature
from trainyard.tasks.specs.export import OnnxExport

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from onnxscript import ir

_STACK_TRACE = "pkg.torch.onnx.stack_trace"
_TERMINAL_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_REASON = re.compile(r"<class '[\w.]*?(\w+)'>: (.*)")


def write_onnx(
    program: TrainedProgram, settings: OnnxExport, provenance: Mapping[str, str], folder: Path
) -> tuple[ModelSignature, int]:
    """Write ``model.onnx`` (weights above 2 GB as external data beside it) and prove that it is well formed.

    Args:
        program: The trained program.
        settings: Opset, and whether the batch must be dynamic.
        provenance: Kept in the model's metadata.
        folder: Where to; must exist.

    Returns:
        The model's signature, and its opset.

    Raises:
        ExportError: ONNX cannot express the program as asked; says why. A retry does not help.
    """
    batch_size = program.batch_size
    onnx_program = _convert(program, settings.opset)
    model = onnx_program.model
    opset = _opset(model, settings.opset)
    if settings.dynamic_batch:
        _require_dynamic_batch(model)
    _name_batch_axis(model)
    _remove_stack_traces(model)
    model.metadata_props.update(provenance)
    onnx_program.save(folder / MODEL_FILE)
    _check(folder / MODEL_FILE)
    return _signature(model, batch_size), opset


def _convert(program: TrainedProgram, opset: int | None) -> "torch.onnx.ONNXProgram":
    import torch

    try:
        with quiet_torch():
            onnx_program = torch.onnx.export(
                program.program,
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=list(program.input_names),
                output_names=list(program.output_names),
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(
            f"The ONNX exporter of torch {torch.__version__} cannot express the model: {_reason(error)}. "
            "Replace that operation in the model, or choose another OnnxExport.opset."
        ) from error
    assert onnx_program is not None  # None only for the old exporter
    return onnx_program


def _reason(error: Exception) -> str:
    """The first cause in the exporter's summary, which lists causes innermost first."""
    text = _TERMINAL_COLOUR.sub("", str(error))
    causes = _REASON.findall(text)
    reason = f"{causes[0][0]}: {causes[0][1]}" if causes else f"{type(error).__name__}: {' '.join(text.split())}"
    return reason[:500].rstrip(". ")


def _opset(model: "ir.Model", asked: int | None) -> int:
    """The opset of the model; the exporter only warns where it could not convert to the one asked for."""
    found = model.opset_imports[""]
    if asked is not None and found != asked:
        raise ExportError(
            f"OnnxExport.opset asks for {asked}, but the exporter can express this model in {found} only."
        )
    return found


def _require_dynamic_batch(model: "ir.Model") -> None:
    frozen = {value.name: _sizes(value) for value in model.graph.inputs if not _is_symbolic_first(value)}
    if frozen:
        shapes = ", ".join(f"{name} {list(sizes)}" for name, sizes in frozen.items())
        raise ExportError(
            f"The saved program takes one batch size only: {shapes}; expected a dynamic first axis. Save it "
            "with torch.export.export(…, dynamic_shapes=({0: torch.export.Dim('batch')},)), one entry an "
            "input, and an example batch of at least 2; or accept the fixed batch with "
            "OnnxExport(dynamic_batch=False)."
        )


def _is_symbolic_first(value: "ir.Value") -> bool:
    sizes = _sizes(value)
    return bool(sizes) and isinstance(sizes[0], str)


def _name_batch_axis(model: "ir.Model") -> None:
    """Call the dynamic first axis ``batch`` everywhere; torch calls it ``s34`` or so, also in ``2*s34``."""
    from onnxscript import ir

    symbols = {str(_sizes(value)[0]) for value in model.graph.inputs if _is_symbolic_first(value)}
    if not symbols:
        return
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, sorted(symbols)))})\b")
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    dim if isinstance(dim, int) else pattern.sub(BATCH_AXIS, dim.value or "") or None
                    for dim in value.shape
                ]
            )


def _values(model: "ir.Model") -> "Iterator[ir.Value]":
    yield from model.graph.inputs
    for node in model.graph.all_nodes():
        yield from node.outputs


def _remove_stack_traces(model: "ir.Model") -> None:
    """They hold paths of the machine and run that trained, so equal models would differ."""
    for node in model.graph.all_nodes():
        node.metadata_props.pop(_STACK_TRACE, None)


def _check(path: Path) -> None:
    """Run ``onnx.checker`` with strict shape inference, on the file: above 2 GB a model fits no message."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The exported model is not valid ONNX {onnx.__version__}: {str(error)[:500]}") from error


def _signature(model: "ir.Model", batch_size: int) -> ModelSignature:
    return ModelSignature(
        inputs=tuple(_tensor(value) for value in model.graph.inputs),
        outputs=tuple(_tensor(value) for value in model.graph.outputs),
        batch_size=batch_size,
    )


def _tensor(value: "ir.Value") -> TensorSignature:
    assert value.name is not None and value.dtype is not None
    return TensorSignature(name=value.name, dtype=value.dtype.numpy().name, shape=_sizes(value))


def _sizes(value: "ir.Value") -> tuple[int | str, ...]:
    """Sizes; an axis that the exporter could not name is ``?``."""
    dims = value.shape if value.shape is not None else ()
    return tuple(dim if isinstance(dim, int) else (dim.value or "?") for dim in dims)
