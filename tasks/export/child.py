"""Export in a process of its own: ``python -m trainyard.tasks.export.child`` (see ``ModelProcess``)."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard.tasks.export.exporter import Exported, write_onnx
from trainyard.tasks.models.loading import load_requested
from trainyard.tasks.models.process import Facts
from trainyard.tasks.models.serving import serve
from trainyard.tasks.models.signature import ModelSignature
from trainyard.tasks.specs.results import ExportAttempt

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

MODULE = "trainyard.tasks.export.child"
EXPORT = "export"


def exported_from(answer: Facts) -> Exported:
    """What the process answered, on the other side."""
    return Exported(
        signature=ModelSignature.model_validate(answer["signature"]),
        opset=answer["opset"],
        attempts=tuple(ExportAttempt.model_validate(attempt) for attempt in answer["attempts"]),
        was_training=answer["was_training"],
    )


def _export(facts: Facts, example: "dict[str, Array]") -> "tuple[Facts, dict[str, Array]]":
    model, settings = load_requested(facts, example)
    exported = write_onnx(model, settings, facts["provenance"], Path(facts["folder"]))
    plain = {
        "signature": exported.signature.model_dump(mode="json"),
        "attempts": [attempt.model_dump(mode="json") for attempt in exported.attempts],
    }
    return {**asdict(exported), **plain}, {}


if __name__ == "__main__":
    serve(sys.argv[1:], {EXPORT: _export})
