"""The trained model to compare with: a program in this process, anything else in one of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard.tasks.artifacts.products import OnnxBundle
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.models.examples import example_inputs
from trainyard.tasks.models.kinds import kind_of
from trainyard.tasks.models.loading import load_request, model_process, require_loadable
from trainyard.tasks.models.process import ModelProcess
from trainyard.tasks.models.program import TrainedProgram, load_program
from trainyard.tasks.validation.timing import Timing, time_calls

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

MODULE = "trainyard.tasks.validation.child"


@dataclass(frozen=True, slots=True)
class LocalReference:
    """A program that runs here."""

    program: TrainedProgram

    @property
    def example_inputs(self) -> "Mapping[str, Array]":
        """An example batch, by input name."""
        return self.program.example_inputs

    def __call__(self, inputs: "Mapping[str, Array]") -> "list[Array]":
        """Run the model eagerly, without gradients."""
        return self.program(inputs)

    def milliseconds(self, inputs: "Mapping[str, Array]", timing: Timing) -> list[float]:
        """Time single calls."""
        return time_calls(lambda: self.program(inputs), timing)


@dataclass(frozen=True, slots=True)
class RemoteReference:
    """A model that runs in a process of its own."""

    process: ModelProcess
    example_inputs: "Mapping[str, Array]"

    def __call__(self, inputs: "Mapping[str, Array]") -> "list[Array]":
        """Run the model eagerly, without gradients."""
        return list(self.process.ask("run", {}, inputs)[1].values())

    def milliseconds(self, inputs: "Mapping[str, Array]", timing: Timing) -> list[float]:
        """Time single calls in the model's own process."""
        return [float(value) for value in self.process.ask("time", {"timing": timing._asdict()}, inputs)[0]["ms"]]


Reference = LocalReference | RemoteReference


@contextmanager
def open_reference(
    bundle: OnnxBundle, outputs: ArtifactRef, source: ArtifactRef | None, store: ArtifactStore, scratch: Path
) -> Iterator[Reference]:
    """Load the trained model that a bundle was made of, as the export did.

    Args:
        bundle: Says which file, and how it is loaded.
        outputs: Tree: what the script wrote below ``outputs/``.
        source: Tree: the source snapshot, for models that need its classes.
        store: Where they are.
        scratch: A folder for the model's file.

    Raises:
        ExportError: It cannot be loaded.
    """
    path = store.materialize(store.find_entry(outputs, bundle.model_file), scratch / "model.pt2")
    kind = kind_of(path, bundle.model_file)
    if kind == "program":
        yield LocalReference(load_program(path, shown_as=bundle.model_file))
        return
    require_loadable(kind, bundle.settings, source, bundle.model_file)
    example = example_inputs(bundle.settings, outputs, store)
    with model_process(MODULE, source, store) as process:
        process.ask("load", load_request(path, kind, bundle.settings), example)
        yield RemoteReference(process, example)
