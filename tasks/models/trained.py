"""What export and validation need of a trained model, whatever it was saved as."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from trainyard.tasks.models.kinds import ModelKind

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from torch.export import ExportedProgram

    Array = npt.NDArray[Any]

Axes = dict[str, dict[int, str]]
"""Axes that take any size: axis to name, by input."""


class RunnableModel(Protocol):
    """A trained model that can be run on arrays."""

    @property
    def example_inputs(self) -> "Mapping[str, Array]":
        """An example batch: one array an input, by name, in order."""

    def __call__(self, inputs: "Mapping[str, Array]") -> "list[Array]":
        """Run the model eagerly, without gradients; gives its outputs, flat, in order."""


class TrainedModel(RunnableModel, Protocol):
    """A trained model in this process."""

    @property
    def kind(self) -> ModelKind:
        """What it was saved as."""

    @property
    def was_training(self) -> bool:
        """Whether it was saved in training mode; it runs in evaluation mode."""

    @property
    def module(self) -> "torch.nn.Module":
        """The module, on the CPU."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""

    def arguments(self, inputs: "Mapping[str, Array]") -> "tuple[tuple[Any, ...], dict[str, Any]]":
        """Positional and keyword arguments of the module for some inputs."""

    def exported(self, axes: Axes, *, strict: bool) -> "ExportedProgram":
        """The program that ``torch.export`` makes of it; raises whatever the model and torch raise."""
