"""Trainyard: Prefect pipelines from data in a datastore to a validated ONNX model.

The public names resolve on first use (PEP 562), so that ``from trainyard import Run`` in a training script
imports neither Prefect nor pydantic, and every rank starts fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "training_pipeline": "trainyard.flows.training_pipeline",
    "Experiment": "trainyard.flows.experiment",
    "DataReference": "trainyard.tasks.specs.datastore",
    "Datastore": "trainyard.tasks.specs.datastore",
    "Hosts": "trainyard.tasks.specs.hosts",
    "OnnxExport": "trainyard.tasks.specs.export",
    "OrtValidation": "trainyard.tasks.specs.validation",
    "PipelineResult": "trainyard.tasks.specs.results",
    "PipelineRun": "trainyard.flows.pipeline_handle",
    "PyTorch": "trainyard.tasks.specs.estimator",
    "Run": "trainyard.tasks.runtime.run",
    "StageOutcome": "trainyard.tasks.specs.results",
    "StagePolicy": "trainyard.tasks.specs.policy",
}

__all__ = [  # the same names as _HOMES: a test holds them together
    "DataReference",
    "Datastore",
    "Experiment",
    "Hosts",
    "OnnxExport",
    "OrtValidation",
    "PipelineResult",
    "PipelineRun",
    "PyTorch",
    "Run",
    "StageOutcome",
    "StagePolicy",
    "errors",
    "training_pipeline",
]

if TYPE_CHECKING:
    from trainyard.flows.experiment import Experiment
    from trainyard.flows.pipeline_handle import PipelineRun
    from trainyard.flows.training_pipeline import training_pipeline
    from trainyard.tasks import errors
    from trainyard.tasks.runtime.run import Run
    from trainyard.tasks.specs.datastore import DataReference, Datastore
    from trainyard.tasks.specs.estimator import PyTorch
    from trainyard.tasks.specs.export import OnnxExport
    from trainyard.tasks.specs.hosts import Hosts
    from trainyard.tasks.specs.policy import StagePolicy
    from trainyard.tasks.specs.results import PipelineResult, StageOutcome
    from trainyard.tasks.specs.validation import OrtValidation


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it, once."""
    if name == "errors":
        return import_module("trainyard.tasks.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'trainyard' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, for completion."""
    return sorted(__all__)
