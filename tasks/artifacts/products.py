"""What each stage makes: the values that travel from stage to stage, and that stage records keep."""

from pydantic import Field

from trainyard.tasks.artifacts.references import ArtifactRef, TreeEntry
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.specs.results import ExportAttempt, ValidationSummary
from trainyard.tasks.specs.spec import Spec

ANSWERS = "answers/"
"""Where a store keeps what runs gave to whoever waits for them, a folder a run; see ``flows/answers.py``. Pipelines and
the workers that train for them tell each other here, too, what soon nobody needs any more."""


class StagedDataset(Spec):
    """One data reference, pinned and present on local disk."""

    uri: str
    """The reference's address."""

    sha256: str
    """Digest of the manifest: the dataset's identity."""

    single_object: bool
    """Whether the reference is one object (the script gets a file) or a prefix (it gets a directory)."""

    num_objects: int
    """Objects in it."""

    num_bytes: int
    """Size in bytes of all objects together."""

    manifest: ArtifactRef
    """The dataset manifest in the store."""


class StagedData(Spec):
    """The stage stage's product: every dataset of the estimator, by the URI of its reference."""

    datasets: tuple[StagedDataset, ...] = ()
    """In the order in which the estimator names them."""


MOST_LEFT_OUTSIDE = 20


class TrainedRun(Spec):
    """The train stage's product."""

    run_id: str
    """Id of the training run that made it."""

    source: ArtifactRef
    """Tree: the source snapshot that was run."""

    outputs: ArtifactRef
    """Tree: what the script wrote below ``outputs/``."""

    logs: ArtifactRef
    """Tree: what the script wrote below ``logs/``, and one log a rank below ``ranks/``."""

    records: ArtifactRef
    """Tree: one file of metric records a rank (``rank-00000.jsonl``)."""

    world_size: int
    """Number of ranks."""

    resumed: bool
    """Whether there was a checkpoint to go on from: of an earlier attempt, or one to resume from."""

    left_outside: tuple[str, ...] = ()
    """Files that the script wrote elsewhere in its working directory, or around it: not kept in the store. At most
    ``MOST_LEFT_OUTSIDE`` of them, each with its size, for people who look for a model."""


class CollectedMetrics(Spec):
    """The metrics stage's product."""

    report: ArtifactRef
    """JSON: every series, final value and per-rank throughput."""

    plots: ArtifactRef
    """Tree: one SVG a plot."""

    finals: dict[str, float]
    """Last value of every metric that rank 0 logged."""


class OnnxBundle(Spec):
    """The export stage's product."""

    bundle: ArtifactRef
    """Tree: ``model.onnx``, its external data if any, ``signature.json``, ``bundle.json``, and labels and
    preprocessing notes where there are any."""

    opset: int
    """Opset version of the default ONNX domain."""

    model_file: str
    """Path inside the run's outputs of the model that was exported."""

    settings: OnnxExport = OnnxExport()
    """How it was loaded and exported; validation loads it the same way."""

    attempts: tuple[ExportAttempt, ...] = ()
    """Every way that was tried, in order; the last one succeeded."""


class ValidatedModel(Spec):
    """The validate stage's product, when the gate was passed."""

    report: ArtifactRef
    """JSON: every check with its figures."""

    bundle_sha256: str
    """Digest of the bundle that passed."""

    verdict_sha256: str
    """Digest of what was proven: settings, inputs, and each check's name, bound and outcome, but no measured
    times or rounding errors; so the same gate passed again by the same model is the same verdict."""

    summary: ValidationSummary
    """The verdict."""

    page: ArtifactRef | None = None
    """HTML: the report for people."""

    champion_version: int | None = None
    """The registered version that it was compared with, and is not worse than."""


class Champion(Spec):
    """The registered version that a new model must not be worse than."""

    version: int
    """Its version."""

    bundle: ArtifactRef
    """Tree: its ONNX bundle."""

    folder: str | None = None
    """Below the store's root: the registry's own copy of the bundle's files, for where the bundle is damaged."""

    files: tuple[TreeEntry, ...] = ()
    """These files; the bundle's digest is that of their listing."""


class RegisteredModel(Spec):
    """The register stage's product."""

    name: str
    """The model's name."""

    version: int = Field(ge=1)
    """Version number, one more than the newest before it."""

    uri: str
    """Address of the version's directory in the store."""

    manifest: ArtifactRef
    """JSON: bundle, report and lineage of the version."""


class Lineage(Spec):
    """Where a model comes from: the digests and settings that decide it."""

    source_sha256: str
    """Digest of the source snapshot."""

    datasets: dict[str, str]
    """Manifest digest of each dataset, by the address of its reference."""

    arguments: tuple[str, ...]
    """The script's arguments; data references appear as their address."""

    topology: str
    """For example ``1x2 mpi``."""

    environment: dict[str, str]
    """Versions of the libraries that made it."""

    metrics: dict[str, float]
    """Final metrics of the training run."""

    pipeline_run: str
    """Id of the Prefect flow run that registered it."""
