"""How long one call takes, in ONNX Runtime and in eager torch, measured in turn in the same process."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainyard.tasks.models.program import TrainedProgram
from trainyard.tasks.validation.parity import run_program
from trainyard.tasks.validation.report import Latency
from trainyard.tasks.validation.samples import Samples
from trainyard.tasks.validation.session import OrtModel

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

NUM_WARMUP_CALLS = 5
MAX_CALLS = 100
MAX_SECONDS = 2.0
MIN_CALLS = 5


def measure_latency(program: TrainedProgram, model: OrtModel, samples: Samples, batch_size: int) -> Latency:
    """Time single calls: up to 100 each, or as many as fit into two seconds, after five that do not count.

    Raises:
        ValidationFailedError: One of the models cannot run such a batch.
    """
    import numpy as np

    positions = np.resize(np.arange(len(samples.indices)), batch_size)
    inputs = {name: array[positions] for name, array in samples.inputs.items()}
    onnx_ms = _milliseconds(lambda: model(inputs))
    torch_ms = _milliseconds(lambda: run_program(program, inputs))
    return Latency(
        provider=model.provider,
        batch_size=batch_size,
        num_calls=len(onnx_ms),
        onnxruntime_p50_ms=float(np.percentile(onnx_ms, 50)),
        onnxruntime_p95_ms=float(np.percentile(onnx_ms, 95)),
        torch_p50_ms=float(np.percentile(torch_ms, 50)),
        torch_p95_ms=float(np.percentile(torch_ms, 95)),
    )


def _milliseconds(call: Callable[[], object]) -> list[float]:
    for _ in range(NUM_WARMUP_CALLS):
        call()
    times: list[float] = []
    while len(times) < MIN_CALLS or (len(times) < MAX_CALLS and sum(times) < MAX_SECONDS * 1000):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1000)
    return times
