"""How torch's exporters are called. The one module that calls them."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import ExportError
from trainyard.tasks.models.program import quiet_torch
from trainyard.tasks.models.signature import BATCH_AXIS
from trainyard.tasks.models.trained import Axes, TrainedModel
from trainyard.tasks.specs.results import ExportAttempt

if TYPE_CHECKING:
    import numpy.typing as npt
    from onnxscript import ir

    Array = npt.NDArray[Any]


def convert(
    model: TrainedModel, axes: Axes, output_names: tuple[str, ...], attempt: ExportAttempt, scratch: Path
) -> "ir.Model":
    """Export a model in one way.

    Args:
        model: The trained model.
        axes: The axes that must take any size.
        output_names: Names for the outputs.
        attempt: The exporter, its mode, the opset.
        scratch: An existing folder for what an exporter writes.

    Raises:
        Exception: Whatever the exporters, or the model, raise.
    """
    if attempt.exporter == "torchscript":
        return _through_torchscript(model, axes, output_names, attempt.opset, scratch)
    return _through_dynamo(model, axes, output_names, attempt)


def default_opset() -> int:
    """The opset that both exporters take where none is asked for."""
    from torch.onnx._constants import ONNX_DEFAULT_OPSET

    return ONNX_DEFAULT_OPSET


def _through_dynamo(
    model: TrainedModel, axes: Axes, output_names: tuple[str, ...], attempt: ExportAttempt
) -> "ir.Model":
    import torch

    with quiet_torch():
        converted = torch.onnx.export(
            model.exported(axes, strict=bool(attempt.strict)),
            dynamo=True,
            verbose=False,
            opset_version=attempt.opset,
            input_names=list(model.example_inputs),
            output_names=list(output_names),
        )
    assert converted is not None  # None only for the old exporter
    found = converted.model.opset_imports[""]
    if attempt.opset is not None and found != attempt.opset:  # the exporter only warns where it could not convert
        raise ExportError(f"the exporter can express this model in opset {found} only")
    return converted.model


def _through_torchscript(
    model: TrainedModel, axes: Axes, output_names: tuple[str, ...], opset: int | None, scratch: Path
) -> "ir.Model":
    """The TorchScript exporter; a trace that would hold for the example only is refused."""
    import torch
    from onnxscript import ir
    from torch.jit._trace import TracerWarning

    positional, keywords = model.arguments(model.example_inputs)
    batched = _batched_outputs(model, axes, output_names)
    path = scratch / "traced.onnx"
    with quiet_torch(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.onnx.export(
            model.module,
            positional,
            str(path),
            kwargs=keywords or None,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # it is in evaluation mode, and a program has no other
            opset_version=opset,
            input_names=list(model.example_inputs),
            output_names=list(output_names),
            dynamic_axes={**axes, **{name: {0: BATCH_AXIS} for name in batched}},
        )
    # Of the layers of torch itself the exporter knows how their own checks are meant.
    own = str(Path(torch.__file__).parent)
    frozen = [
        str(warning.message)
        for warning in caught
        if issubclass(warning.category, TracerWarning) and not warning.filename.startswith(own)
    ]
    if frozen:
        raise ExportError(f"its trace would hold for the example only: {' '.join(frozen[0].split())}")
    return ir.load(path)


def _batched_outputs(model: TrainedModel, axes: Axes, output_names: tuple[str, ...]) -> list[str]:
    """The outputs whose first axis is the sample: the trace does not say, running two sizes does."""
    import numpy as np

    if not any(name == BATCH_AXIS for named in axes.values() for name in named.values()):
        return []
    more = {
        name: np.concatenate([array, array[:1]]) if axes[name].get(0) == BATCH_AXIS else array
        for name, array in model.example_inputs.items()
    }
    pairs = zip(output_names, model(model.example_inputs), model(more), strict=True)
    return [name for name, one, two in pairs if one.ndim and two.shape[0] == one.shape[0] + 1]
