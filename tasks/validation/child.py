"""Run the trained model in a process of its own, ``python -m trainyard.tasks.validation.child``: a ``ModelProcess``."""

import sys
from typing import TYPE_CHECKING, Any

from trainyard.tasks.models.eager import EagerModel
from trainyard.tasks.models.loading import load_requested
from trainyard.tasks.models.process import Facts
from trainyard.tasks.models.serving import serve
from trainyard.tasks.validation.timing import Timing, time_calls

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


class _Served:
    """The model that the first request loads."""

    def __init__(self) -> None:
        self._model: EagerModel | None = None

    def load(self, facts: Facts, example: "dict[str, Array]") -> "tuple[Facts, dict[str, Array]]":
        self._model, _ = load_requested(facts, example)
        return {}, {}

    def run(self, facts: Facts, inputs: "dict[str, Array]") -> "tuple[Facts, dict[str, Array]]":
        outputs = self._loaded(inputs)
        return {}, {f"{position:06}": array for position, array in enumerate(outputs)}

    def time(self, facts: Facts, inputs: "dict[str, Array]") -> "tuple[Facts, dict[str, Array]]":
        return {"ms": time_calls(lambda: self._loaded(inputs), Timing(**facts["timing"]))}, {}

    def _loaded(self, inputs: "dict[str, Array]") -> "list[Array]":
        assert self._model is not None, "the first request loads the model"
        return self._model(inputs)


if __name__ == "__main__":
    served = _Served()
    serve(sys.argv[1:], {"load": served.load, "run": served.run, "time": served.time})
