"""How long one call takes, in ONNX Runtime and in eager torch, measured in turn in the same run."""

from trainyard.tasks.models.signature import ModelSignature
from trainyard.tasks.validation.figures import Latency
from trainyard.tasks.validation.parity import run_reference
from trainyard.tasks.validation.reference import Reference
from trainyard.tasks.validation.samples import Samples
from trainyard.tasks.validation.session import OrtModel
from trainyard.tasks.validation.timing import Timing, time_calls


def latency_batch_sizes(signature: ModelSignature, batch_sizes: tuple[int, ...]) -> tuple[int, ...]:
    """A batch of one, and the largest that is compared; for a fixed batch only that one."""
    if not signature.batch_is_dynamic:
        return (signature.batch_size,)
    return tuple(dict.fromkeys((1, max(batch_sizes))))


def measure_latency(reference: Reference, model: OrtModel, samples: Samples, batch_size: int) -> Latency:
    """Time single calls: up to 100 each, or as many as fit into two seconds, after five that do not count.

    Raises:
        ValidationFailedError: One of the models cannot run such a batch.
    """
    import numpy as np

    inputs = samples.batch(batch_size)
    run_reference(reference, inputs)  # says why it cannot, where it cannot
    onnx_ms = time_calls(lambda: model(inputs), Timing())
    torch_ms = reference.milliseconds(inputs, Timing())
    return Latency(
        provider=model.provider,
        batch_size=batch_size,
        num_calls=len(onnx_ms),
        onnxruntime_p50_ms=float(np.percentile(onnx_ms, 50)),
        onnxruntime_p95_ms=float(np.percentile(onnx_ms, 95)),
        torch_p50_ms=float(np.percentile(torch_ms, 50)),
        torch_p95_ms=float(np.percentile(torch_ms, 95)),
    )
