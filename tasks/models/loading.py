"""The request by which a ``ModelProcess`` loads a model, from both sides."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ExportError
from trainyard.tasks.models.eager import EagerModel, load_eager
from trainyard.tasks.models.kinds import DESCRIPTIONS, ModelKind
from trainyard.tasks.models.process import Facts, ModelProcess
from trainyard.tasks.runtime.scratch import scratch_prefix
from trainyard.tasks.specs.export import OnnxExport

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def require_loadable(kind: ModelKind, settings: OnnxExport, source: ArtifactRef | None, shown_as: str) -> None:
    """Refuse what cannot or must not be loaded, before a process is started for it.

    Raises:
        ExportError: A pickle without permission, weights without a factory, or no source; says what to set.
    """
    if kind == "pickle" and not settings.allow_pickle:
        raise ExportError(
            f"{shown_as} in the run's outputs is a pickle: loading it runs whatever code it holds. If you trust the "
            "script that wrote it, allow that, in a process of its own: OnnxExport(allow_pickle=True). To avoid it, "
            "save weights only, torch.save(model.state_dict(), …), and name a factory, "
            "OnnxExport(module='package.module:factory'); or save a program, torch.export.save(…, 'outputs/model.pt2')."
        )
    if kind in ("state_dict", "safetensors") and settings.module is None:
        raise ExportError(
            f"{shown_as} in the run's outputs is a {DESCRIPTIONS[kind]}, weights without a model: name what makes the "
            "model, OnnxExport(module='package.module:factory') with a module of the source directory; or save a "
            "program, torch.export.save(…, 'outputs/model.pt2')."
        )
    if settings.needs_source and source is None:
        raise ExportError(f"{shown_as} can only be loaded with the source it was made with; give it as well.")


@contextmanager
def model_process(module: str, source: ArtifactRef | None, store: ArtifactStore) -> Iterator[ModelProcess]:
    """A process that has a copy of the training project, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix=scratch_prefix("source")) as scratch:
        folder = Path(scratch) / "source"
        if source is None:
            folder.mkdir()
        else:
            store.materialize(source, folder)
        with ModelProcess(module, folder) as process:
            yield process


def load_request(path: Path, kind: ModelKind, settings: OnnxExport) -> Facts:
    """What the other side needs beside the example's arrays."""
    return {"path": str(path), "kind": kind, "settings": settings.model_dump(mode="json")}


def load_requested(facts: Facts, example: "dict[str, Array]") -> tuple[EagerModel, OnnxExport]:
    """Load what ``load_request`` asks for; the working directory is the training project.

    Raises:
        ExportError: See ``load_eager``.
    """
    settings = OnnxExport.model_validate(facts["settings"])
    return load_eager(Path(facts["path"]), facts["kind"], settings, Path.cwd(), example), settings
