"""What a validation report is made of: checks with their bounds, and the figures behind them."""

from typing import Literal

from pydantic import Field

from trainyard.tasks.specs.spec import Spec

HISTOGRAM_DECADES = range(-10, 3)
"""Bins of a parity histogram: the first counts errors below 1e-10 (zero too), the next those up to 1e-9, and so on; the
last counts those above 100."""

MOST_CLASSES = 64
"""A confusion matrix is kept for at most this many classes."""

MOST_POINTS = 500
"""Of a regression at most this many values are kept for a plot, spread evenly."""

TOLERANCE_RULE = "abs(onnx - torch) <= atol + rtol * abs(torch) (numpy.allclose); integers and booleans equal"


class Check(Spec):
    """One thing that must hold."""

    name: str
    """What, and where: provider, batch size and output."""

    passed: bool
    """Whether it holds."""

    expected: str
    """The bound; depends on the settings only, never on a measurement."""

    found: str
    """The measurement."""


class SamplesUsed(Spec):
    """What both runtimes were run on."""

    source: Literal["run", "random"]
    """The run's own held-out samples, or seeded random inputs because it left none."""

    num_samples: int
    """Samples used."""

    num_available: int
    """Samples that the run left."""

    labelled: bool
    """Whether they have labels."""

    seed: int | None = None
    """Seed of random inputs."""

    sha256: str | None = None
    """Digest of the run's samples file."""


class Tolerance(Spec):
    """What differences are allowed in outputs of one element type, and on whose authority."""

    dtype: str
    atol: float
    rtol: float
    source: str
    """Where the numbers come from."""


class WorstSample(Spec):
    """A sample on which the runtimes differ most."""

    output: str
    index: int
    """In the run's samples file."""

    max_abs_error: float
    torch_class: int | None = None
    """Class with torch's largest score, for classifiers."""

    onnx_class: int | None = None
    """The same in ONNX Runtime."""

    label: int | None = None
    """Its true class, where the samples are labelled."""


class OutputParity(Spec):
    """How one output differed, in one provider, at one batch size, over all samples compared."""

    provider: str
    batch_size: int
    output: str
    sizes: dict[str, int] = Field(default_factory=dict)
    """Sizes of the other named axes, where they were changed for this comparison."""

    num_samples: int
    max_abs_error: float
    mean_abs_error: float
    max_rel_error: float
    """Of |onnx - torch| / |torch|, where torch's value is not zero."""

    mean_rel_error: float
    worst_sample: int | None
    """Index of the sample with the largest absolute error, in the run's samples file."""

    num_beyond_tolerance: int
    """Values outside the tolerance."""

    num_non_finite: int
    """Values that are NaN in either runtime, or infinite in one and not so in the other; left out of the errors."""

    atol_needed: float
    """The smallest absolute tolerance that all values would meet."""

    agreement: float | None
    """Fraction of samples with the same class (largest score) in both; None where there are no classes."""

    histogram: tuple[int, ...]
    """Values by size of their absolute error: see ``HISTOGRAM_DECADES``."""

    worst: tuple[WorstSample, ...] = ()
    """The samples with the largest absolute errors, largest first."""

    @property
    def where(self) -> str:
        """Provider, batch size and other sizes, as in the names of checks."""
        sizes = "".join(f", {axis} {size}" for axis, size in self.sizes.items())
        return f"{self.provider}, batch {self.batch_size}{sizes}"


class QualityFigure(Spec):
    """A metric on labelled samples, in both runtimes."""

    provider: str
    metric: str
    num_samples: int
    torch: float
    onnxruntime: float
    difference: float
    """onnxruntime - torch."""


class Classification(Spec):
    """What a classifier got right in ONNX Runtime, on labelled samples."""

    matrix: tuple[tuple[int, ...], ...]
    """Counts: a row a true class, a column a predicted class; empty for more than ``MOST_CLASSES``."""

    coverage: tuple[float, ...]
    """Fractions of the samples, the most confident first."""

    accuracy: tuple[float, ...]
    """Accuracy on each of these fractions."""

    scores_are: Literal["logits", "probabilities"] = "logits"
    """What the model's scores were taken for: probabilities where they lie between 0 and 1 and add up to 1."""


class Regression(Spec):
    """By how much a regression was off in ONNX Runtime, on labelled samples; differences are answer - label."""

    num_values: int
    """Values compared: samples times values of one."""

    bias: float
    """Mean difference."""

    p50_abs: float
    """Median of the absolute differences."""

    p95_abs: float
    """Their 95th percentile."""

    max_abs: float
    """The largest of them."""

    expected: tuple[float, ...]
    """Labels, at most ``MOST_POINTS``."""

    predicted: tuple[float, ...]
    """The model's answers to them."""


class ChampionFigure(Spec):
    """A metric of this model and of the registered champion, on the same samples, in ONNX Runtime."""

    version: int
    """The champion's version."""

    metric: str
    num_samples: int
    champion: float
    challenger: float
    decides: bool = True
    """Whether the models are compared by it; else it is shown only."""


class Footprint(Spec):
    """What a session costs, measured in a process of its own."""

    provider: str
    load_ms: float
    """Milliseconds to load the model."""

    peak_num_bytes: int
    """Most resident memory, loading and calls, above that of a process without a session."""

    nodes: dict[str, int] = Field(default_factory=dict)
    """Nodes of the graph by the execution provider that ran them."""

    @property
    def node_share(self) -> float:
        """Fraction of the nodes that ran in the provider itself."""
        return self.nodes.get(self.provider, 0) / max(sum(self.nodes.values()), 1)


class Latency(Spec):
    """Milliseconds of one call, ONNX Runtime and eager torch on the same machine in the same run."""

    provider: str
    batch_size: int
    num_calls: int
    onnxruntime_p50_ms: float
    onnxruntime_p95_ms: float
    torch_p50_ms: float
    torch_p95_ms: float

    @property
    def samples_per_second(self) -> tuple[float, float]:
        """Throughput of ONNX Runtime and of torch, from the medians."""
        return self.batch_size * 1000 / self.onnxruntime_p50_ms, self.batch_size * 1000 / self.torch_p50_ms
