"""From a trained model to a checked ``model.onnx`` and its signature."""

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainyard.tasks.errors import ExportError
from trainyard.tasks.export.axes import named_axes
from trainyard.tasks.export.convert import convert
from trainyard.tasks.export.ladder import attempts_for, climb
from trainyard.tasks.models.layout import EXTERNAL_DATA_FILE, MODEL_FILE
from trainyard.tasks.models.program import TrainedProgram
from trainyard.tasks.models.signature import ModelSignature, TensorSignature
from trainyard.tasks.models.trained import Axes, TrainedModel
from trainyard.tasks.runtime.scratch import scratch_prefix
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.specs.results import ExportAttempt

if TYPE_CHECKING:
    from onnxscript import ir

_STACK_TRACE = "pkg.torch.onnx.stack_trace"
MAX_INLINE_BYTES = 1_800_000_000
"""Weights above this lie beside the model: a protobuf message ends at 2^31 bytes, graph and names included."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Args:
        signature: What the model takes and gives.
        opset: Of the default ONNX domain.
        attempts: Every way that was tried; the last one succeeded.
        was_training: Whether the model was saved in training mode.
    """

    signature: ModelSignature
    opset: int
    attempts: tuple[ExportAttempt, ...]
    was_training: bool


def write_onnx(model: TrainedModel, settings: OnnxExport, provenance: Mapping[str, str], folder: Path) -> Exported:
    """Write ``model.onnx`` (weights above 2 GB as external data beside it) and prove that it is well formed.

    Args:
        model: The trained model.
        settings: Opset, dynamic axes, names, and what may be tried.
        provenance: Kept in the model's metadata.
        folder: Where to; must exist.

    Raises:
        ExportError: ONNX cannot express the model as asked; says why. A retry does not help.
    """
    axes = named_axes(settings, model.example_inputs)
    names = _output_names(settings, model.output_names)
    if isinstance(model, TrainedProgram):
        _require_any_size(model.input_sizes, axes)  # what it was saved with no exporter can change
    with tempfile.TemporaryDirectory(prefix=scratch_prefix("traced")) as scratch:

        def write(attempt: ExportAttempt) -> "ir.Model":
            onnx_model = convert(model, axes, names, attempt, Path(scratch))
            _name_axes(onnx_model, axes)
            _require_any_size({value.name or "": _sizes(value) for value in onnx_model.graph.inputs}, axes)
            _remove_stack_traces(onnx_model)
            onnx_model.metadata_props.update({**provenance, "trainyard.exporter": attempt.description})
            _save(onnx_model, folder)
            _check(folder / MODEL_FILE)
            return onnx_model

        onnx_model, attempts = climb(attempts_for(settings, model.kind), write)
    return Exported(
        signature=_signature(onnx_model, model),
        opset=onnx_model.opset_imports[""],
        attempts=attempts,
        was_training=model.was_training,
    )


def _output_names(settings: OnnxExport, found: tuple[str, ...]) -> tuple[str, ...]:
    if settings.output_names is None:
        return found
    if len(settings.output_names) != len(found) or len(set(settings.output_names)) != len(found):
        raise ExportError(
            f"OnnxExport.output_names names {', '.join(settings.output_names)}; expected {len(found)} different names, "
            f"for {', '.join(found)}."
        )
    return settings.output_names


def _name_axes(model: "ir.Model", axes: Axes) -> None:
    """Call dynamic axes by their names everywhere; torch calls them ``s34`` or so, also in ``2*s34``."""
    from onnxscript import ir

    names = {}
    for value in model.graph.inputs:
        for axis, name in axes.get(value.name or "", {}).items():
            size = _sizes(value)[axis]
            if isinstance(size, str):
                names[size] = name
    if not names:
        return
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, sorted(names)))})\b")
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    dim if isinstance(dim, int) else pattern.sub(lambda m: names[m[1]], dim.value or "") or None
                    for dim in value.shape
                ]
            )


def _require_any_size(inputs: Mapping[str, tuple[int | str, ...]], axes: Axes) -> None:
    frozen = []
    for name, sizes in inputs.items():
        named = axes.get(name, {})
        shown = [size if isinstance(size, int) else named.get(axis, size) for axis, size in enumerate(sizes)]
        frozen += [(name, axis, axis_name, shown) for axis, axis_name in named.items() if isinstance(sizes[axis], int)]
    if not frozen:
        return
    shapes = ", ".join(f"{name} {sizes}" for name, _, _, sizes in frozen)
    if all(axis == 0 for _, axis, _, _ in frozen):
        raise ExportError(
            f"The saved program takes one batch size only: {shapes}; expected a dynamic first axis. Save it "
            "with torch.export.export(…, dynamic_shapes=({0: torch.export.Dim('batch')},)), one entry an "
            "input, and an example batch of at least 2; or accept the fixed batch with "
            "OnnxExport(dynamic_batch=False)."
        )
    wanted = ", ".join(f"axis {axis} of {name} ({axis_name!r})" for name, axis, axis_name, _ in frozen)
    raise ExportError(
        f"The exported model has fixed sizes where any were asked for, {wanted}: {shapes}. Save the program with a "
        "torch.export.Dim for each of them, or leave them out of OnnxExport.dynamic_axes."
    )


def _values(model: "ir.Model") -> "Iterator[ir.Value]":
    yield from model.graph.inputs
    for node in model.graph.all_nodes():
        yield from node.outputs


def _remove_stack_traces(model: "ir.Model") -> None:
    """They hold paths of the machine and run that trained, so equal models would differ."""
    for node in model.graph.all_nodes():
        node.metadata_props.pop(_STACK_TRACE, None)
        node.doc_string = None


def _save(model: "ir.Model", folder: Path) -> None:
    from onnxscript import ir

    weights = (value.const_value for value in model.graph.initializers.values())
    num_bytes = sum(weight.nbytes for weight in weights if weight is not None)
    (folder / EXTERNAL_DATA_FILE).unlink(missing_ok=True)  # of an attempt that was not valid
    ir.save(model, folder / MODEL_FILE, external_data=EXTERNAL_DATA_FILE if num_bytes > MAX_INLINE_BYTES else None)


def _check(path: Path) -> None:
    """Run ``onnx.checker`` with strict shape inference, on the file: above 2 GB a model fits no message."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The exported model is not valid ONNX {onnx.__version__}: {str(error)[:500]}") from error


def _signature(onnx_model: "ir.Model", model: TrainedModel) -> ModelSignature:
    shape = next(iter(model.example_inputs.values())).shape
    return ModelSignature(
        inputs=tuple(_tensor(value) for value in onnx_model.graph.inputs),
        outputs=tuple(_tensor(value) for value in onnx_model.graph.outputs),
        batch_size=shape[0] if shape else 1,
    )


def _tensor(value: "ir.Value") -> TensorSignature:
    assert value.name is not None and value.dtype is not None
    return TensorSignature(name=value.name, dtype=value.dtype.numpy().name, shape=_sizes(value))


def _sizes(value: "ir.Value") -> tuple[int | str, ...]:
    """Sizes; an axis that the exporter could not name is ``?``."""
    dims = value.shape if value.shape is not None else ()
    return tuple(dim if isinstance(dim, int) else (dim.value or "?") for dim in dims)
