"""Champion and challenger: the registered model on the same labelled samples."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from trainyard.tasks.artifacts.digests import canonical_json, digest_bytes, digest_file
from trainyard.tasks.artifacts.products import Champion
from trainyard.tasks.artifacts.references import TreeListing
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ArtifactDamagedError, StorageNotFoundError, ValidationFailedError
from trainyard.tasks.models.layout import MODEL_FILE, SIGNATURE_FILE
from trainyard.tasks.models.signature import ModelSignature
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.figures import ChampionFigure, QualityFigure
from trainyard.tasks.validation.quality import Goal, are_probabilities, goal_of, measure
from trainyard.tasks.validation.samples import Samples, spread
from trainyard.tasks.validation.session import open_model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Indices = npt.NDArray[np.int64]

log = logging.getLogger(__name__)


def compare_with_champion(
    champion: Champion,
    challengers: list[QualityFigure],
    samples: Samples,
    settings: OrtValidation,
    store: ArtifactStore,
    scratch: Path,
) -> list[ChampionFigure]:
    """The champion's figures beside the challenger's; none where it cannot take these samples.

    Args:
        champion: The registered version.
        challengers: What the new model reached.
        samples: The samples that it was measured on, with their labels.
        settings: The kind of model, the metrics that decide, and the execution provider to run the champion in.
        store: Where the champion is.
        scratch: A folder for it.

    Raises:
        ArtifactDamagedError: Its files are whole neither in the store nor in the registry; says what to do.
    """
    folder = _files_of(champion, store, scratch)
    signature = ModelSignature.model_validate_json((folder / SIGNATURE_FILE).read_bytes())
    provider = settings.providers[0]
    measured = [figure for figure in challengers if figure.provider == provider]
    goal = goal_of(signature, samples.labels, settings.told_problem)
    if not measured or goal.output is None or goal.problem is None:
        return []
    positions = spread(len(samples.indices), measured[0].num_samples)  # as the challenger was
    try:
        figures = _figures(folder / MODEL_FILE, signature, goal, samples, positions, provider)
    except ValidationFailedError as error:
        log.warning("The champion, version %d, cannot be compared with: %s", champion.version, error)
        return []
    deciding = settings.compared_metrics(goal.problem)
    return [
        ChampionFigure(
            version=champion.version,
            metric=figure.metric,
            num_samples=figure.num_samples,
            champion=figures[figure.metric],
            challenger=figure.onnxruntime,
            decides=figure.metric in deciding,
        )
        for figure in measured
        if figure.metric in figures
    ]


def _files_of(champion: Champion, store: ArtifactStore, scratch: Path) -> Path:
    """The champion's bundle; where the store's objects are damaged, the registry's own copy of the same bytes."""
    try:
        return store.materialize(champion.bundle, scratch / "champion")
    except ArtifactDamagedError as damage:
        problem = _copy_registered(champion, store, scratch / "registered")
        if problem is not None:
            raise ArtifactDamagedError(
                f"version {champion.version} is damaged: {damage} {problem} Give the champion back to the version "
                "before it, trainyard models rollback NAME --reason 'damaged'; or promote a version that is whole"
            ) from damage
        log.warning("%s The registry's own copy of version %d is used in its place.", damage, champion.version)
        return scratch / "registered"


def _copy_registered(champion: Champion, store: ArtifactStore, folder: Path) -> str | None:
    """Copy the registry's files; says what is wrong with them, if anything is."""
    listing = canonical_json(TreeListing(entries=champion.files).model_dump(mode="json"))
    if champion.folder is None or digest_bytes(listing) != champion.bundle.sha256:
        return "The registry names no copy of the same files."
    folder.mkdir(parents=True)
    for entry in champion.files:
        location, path = store.root / champion.folder / entry.path, folder / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("wb") as out:
                out.writelines(location.read_chunks())
        except StorageNotFoundError:
            return f"The registry's copy has no {entry.path} either."
        if digest_file(path)[0] != entry.sha256:
            return f"The registry's copy of {entry.path} is damaged, too."
    return None


def _figures(
    path: Path, signature: ModelSignature, goal: Goal, samples: Samples, positions: "Indices", provider: str
) -> dict[str, float]:
    """The champion's metrics; none where it gives NaN or infinities."""
    import numpy as np

    assert samples.labels is not None and goal.output is not None
    model = open_model(path, provider)
    names = [tensor.name for tensor in signature.inputs]
    answers = []
    for start in range(0, len(positions), signature.batch_size):
        chosen = positions[start : start + signature.batch_size]
        batch = np.resize(chosen, signature.batch_size)
        inputs = {name: samples.inputs[name][batch] for name in names if name in samples.inputs}
        answers.append(model(inputs)[goal.output][: len(chosen)])
    values = np.concatenate(answers)
    if not np.isfinite(values).all():
        return {}
    return measure(goal, samples.labels[positions], values, are_probabilities(values))
