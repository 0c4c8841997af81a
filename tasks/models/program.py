"""The trained model as the script saved it: a ``torch.export`` program. The one module that loads it.

A training script saves it on rank 0, from a model in evaluation mode on the CPU, with a dynamic batch axis::

    program = torch.export.export(
        model.cpu().eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, "outputs/model.pt2")
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import ExportError
from trainyard.tasks.models.kinds import ModelKind
from trainyard.tasks.models.trained import Axes
from trainyard.tasks.models.training_mode import acts_as_training

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from torch.export import ExportedProgram

    Array = npt.NDArray[Any]

log = logging.getLogger(__name__)

HOW_TO_SAVE = """\
Save one from the training script, on rank 0:
    batch = torch.export.Dim("batch")
    program = torch.export.export(model.cpu().eval(), (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, "outputs/model.pt2")"""


@dataclass(frozen=True)
class TrainedProgram:
    """A loaded program, callable with arrays by input name.

    Args:
        program: As ``torch.export.load`` gives it.
    """

    program: "ExportedProgram"
    kind: ModelKind = "program"

    @property
    def was_training(self) -> bool:
        """Whether dropout or batch normalization is in training mode in the program, for good."""
        return bool(self.training_operations)

    @property
    def training_operations(self) -> list[str]:
        """Names of the operations that behave as in training."""
        found = []
        for node in self.program.graph.nodes:
            schema = getattr(node.target, "_schema", None)
            if node.op != "call_function" or schema is None:
                continue
            names = [argument.name for argument in schema.arguments]
            given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
            if acts_as_training(given):
                found.append(schema.name.removeprefix("aten::"))
        return list(dict.fromkeys(found))

    def exported(self, axes: Axes, *, strict: bool) -> "ExportedProgram":
        """The program itself: its axes were chosen when it was saved."""
        return self.program

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the tensor inputs: the parameters of ``forward``, in order."""
        return tuple(name for name, _ in self._user_inputs if name)

    @property
    def input_sizes(self) -> dict[str, tuple[int | str, ...]]:
        """Sizes of each input; an axis that takes any size is its symbol."""
        values = {node.name: node.meta["val"] for node in self.program.graph.nodes if node.op == "placeholder"}
        return {
            name: tuple(size if isinstance(size, int) else str(size) for size in values[name].shape)
            for name in self.input_names
        }

    @cached_property
    def example_inputs(self) -> "dict[str, Array]":
        """The inputs that the program was exported with, by name.

        Raises:
            ExportError: The program was saved without them.
        """
        import torch
        from torch.utils import _pytree as pytree

        leaves = pytree.tree_leaves(self.program.example_inputs)
        tensors = [leaf.detach().numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if not tensors or len(tensors) != len(self.input_names):
            raise ExportError(
                f"The saved program takes {', '.join(self.input_names) or 'no tensors'} but holds "
                f"{len(tensors)} example inputs; its batch size cannot be known. {HOW_TO_SAVE}"
            )
        return dict(zip(self.input_names, tensors, strict=True))

    @property
    def output_names(self) -> tuple[str, ...]:
        """``output``; for several ``output_0``, ``output_1``, …; for a dictionary its keys."""
        num_outputs = len(self.program.graph_signature.user_outputs)
        structure = self.program.call_spec.out_spec.unflatten(list(range(num_outputs)))
        if isinstance(structure, Mapping) and all(isinstance(position, int) for position in structure.values()):
            return tuple(str(key) for key, _ in sorted(structure.items(), key=lambda item: item[1]))
        return ("output",) if num_outputs == 1 else tuple(f"output_{n}" for n in range(num_outputs))

    def __call__(self, inputs: "Mapping[str, Array]") -> "list[Array]":
        """Run the program eagerly, without gradients.

        Args:
            inputs: One array a tensor input, by name.

        Returns:
            The outputs, flat, in the order of ``output_names``.
        """
        import torch
        from torch.utils import _pytree as pytree

        arguments, keywords = self.arguments(inputs)
        with torch.no_grad():
            outputs = self.module(*arguments, **keywords)
        return [leaf.numpy() for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]

    def arguments(self, inputs: "Mapping[str, Array]") -> "tuple[tuple[Any, ...], dict[str, Any]]":
        """Positional and keyword arguments of the module for some inputs."""
        import torch

        flat = [torch.from_numpy(inputs[name]) if name else value for name, value in self._user_inputs]
        arguments, keywords = self.program.call_spec.in_spec.unflatten(flat)
        return tuple(arguments), dict(keywords)

    @cached_property
    def module(self) -> "torch.nn.Module":
        """The program as a module."""
        with quiet_torch():
            return self.program.module()

    @property
    def _user_inputs(self) -> list[tuple[str | None, object]]:
        """Name and None for each tensor input, None and the value for each constant one."""
        from torch.export.graph_signature import ConstantArgument, InputKind

        specs = [spec for spec in self.program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
        return [
            (None, spec.arg.value) if isinstance(spec.arg, ConstantArgument) else (spec.arg.name, None)
            for spec in specs
        ]


def load_program(path: Path, shown_as: str) -> TrainedProgram:
    """Load a program that ``torch.export.save`` wrote.

    Args:
        path: The file.
        shown_as: What messages call it, for example ``model.pt2``.

    Raises:
        ExportError: The file is not such a program, or this version of torch cannot read it.
    """
    import torch

    try:
        with quiet_torch():
            return TrainedProgram(torch.export.load(path))
    except Exception as error:  # the archive reader raises BadZipFile, RuntimeError, KeyError, AttributeError, …
        reason = " ".join(str(error).split())[:300]
        raise ExportError(
            f"{shown_as} in the run's outputs is not a program that torch {torch.__version__} can load "
            f"({type(error).__name__}: {reason}). A state dict or a pickled module is not one. {HOW_TO_SAVE}"
        ) from error


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Keep what torch's exporter and loader warn of in the debug log; errors are raised all the same."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
    for warning in caught:
        log.debug("%s: %s", warning.category.__name__, warning.message)
