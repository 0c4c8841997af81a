"""What an ONNX model must prove before it is registered."""

from pydantic import Field

from trainyard.tasks.specs.spec import Spec


class OrtValidation(Spec):
    """The gate in front of the registry: ONNX Runtime against the trained PyTorch model, on many samples."""

    providers: tuple[str, ...] = Field(default=("CPUExecutionProvider",), min_length=1, title="Execution providers")
    """Every provider named here is tested on its own, and asserted to be the one that ran."""

    batch_sizes: tuple[int, ...] | None = Field(default=None, title="Batch sizes")
    """Batch sizes to compare at; by default 1, the exported example's, and one that is neither."""

    max_samples: int = Field(default=4096, ge=1, title="Most samples")
    """At most this many of the run's held-out samples are used."""

    atol: float = Field(default=1e-5, ge=0, title="Absolute tolerance")
    """Largest allowed |onnx - torch| beyond the relative part (``numpy.allclose``'s rule). For float32 the
    default is that of ``torch.testing.assert_close``."""

    rtol: float = Field(default=1.3e-6, ge=0, title="Relative tolerance")
    """Largest allowed difference relative to |torch|. For float32 the default is that of
    ``torch.testing.assert_close``."""

    min_agreement: float = Field(default=1.0, ge=0, le=1, title="Least label agreement")
    """Smallest fraction of samples on which both runtimes choose the same class (classifiers only)."""

    min_metrics: dict[str, float] = Field(default_factory=dict, title="Least metrics")
    """Lower bounds for quality on the held-out labels in ONNX Runtime, for example ``{"accuracy": 0.95}``."""
