"""Which axes of the inputs take any size, and under which names."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import ExportError
from trainyard.tasks.models.signature import BATCH_AXIS
from trainyard.tasks.models.trained import Axes
from trainyard.tasks.specs.export import OnnxExport

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def named_axes(settings: OnnxExport, example: "Mapping[str, Array]") -> Axes:
    """The axes that must be dynamic: the batch, those of described inputs, and those that the settings name.

    Raises:
        ExportError: The settings name an input or an axis that is not there; says which there are.
    """
    axes: Axes = {name: {} for name in example}
    for described in settings.inputs or ():
        axes[described.name] = {n: size for n, size in enumerate(described.shape) if isinstance(size, str)}
    problems = []
    for name, wanted in settings.dynamic_axes.items():
        for axis, axis_name in wanted.items():
            if name not in example:
                problems.append(f"there is no input {name!r}; inputs: {', '.join(example)}")
            elif axis >= example[name].ndim:
                problems.append(f"input {name!r} has no axis {axis}; its example has shape {list(example[name].shape)}")
            else:
                axes[name][axis] = axis_name
    if problems:
        raise ExportError("OnnxExport.dynamic_axes: " + "; ".join(problems) + ".")
    for name, array in example.items():
        axes[name].pop(0, None)
        if settings.dynamic_batch and array.ndim:
            axes[name] = {0: BATCH_AXIS, **axes[name]}
    return axes
