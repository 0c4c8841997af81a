"""Make what a person wrote in one working directory mean the same in another process."""

from pathlib import Path
from typing import Any

from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.specs.datastore import DataReference, Datastore
from trainyard.tasks.specs.estimator import PyTorch


def anchored(estimator: PyTorch) -> PyTorch:
    """The same job with absolute local paths: its source directory and its datastores."""
    source = str(Path(estimator.source_directory).expanduser().resolve())
    values = {
        name: {key: _anchored(value) for key, value in getattr(estimator, name).items()}
        for name in ("script_params", "inputs")
    }
    return estimator.model_copy(
        update={**values, "source_directory": source, "resume_from": _anchored(estimator.resume_from)}
    )


def _anchored(value: Any) -> Any:
    if isinstance(value, DataReference):
        return value.model_copy(update={"datastore": _anchored(value.datastore)})
    return value.model_copy(update={"url": Location(value.url).url}) if isinstance(value, Datastore) else value
