"""Champion and challenger: the registered model on the same labelled samples."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from trainyard.tasks.artifacts.products import Champion
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ValidationFailedError
from trainyard.tasks.models.layout import MODEL_FILE, SIGNATURE_FILE
from trainyard.tasks.models.signature import ModelSignature
from trainyard.tasks.validation.report import ChampionFigure, QualityFigure
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
    provider: str,
    store: ArtifactStore,
    scratch: Path,
) -> list[ChampionFigure]:
    """The champion's figures beside the challenger's; none where it cannot take these samples.

    Args:
        champion: The registered version.
        challengers: What the new model reached.
        samples: The samples that it was measured on, with their labels.
        provider: The execution provider to run the champion in.
        store: Where the champion is.
        scratch: A folder for it.
    """
    folder = store.materialize(champion.bundle, scratch / "champion")
    signature = ModelSignature.model_validate_json((folder / SIGNATURE_FILE).read_bytes())
    measured = [figure for figure in challengers if figure.provider == provider and figure.metric == "accuracy"]
    if samples.labels is None or signature.classifier_output is None or not measured:
        return []
    try:
        positions = spread(len(samples.indices), measured[0].num_samples)  # as the challenger was
        accuracy = _accuracy(folder / MODEL_FILE, signature, samples, positions, provider)
    except ValidationFailedError as error:
        log.warning("The champion, version %d, cannot be compared with: %s", champion.version, error)
        return []
    return [
        ChampionFigure(
            version=champion.version,
            metric=figure.metric,
            num_samples=figure.num_samples,
            champion=accuracy,
            challenger=figure.onnxruntime,
        )
        for figure in measured
    ]


def _accuracy(path: Path, signature: ModelSignature, samples: Samples, positions: "Indices", provider: str) -> float:
    import numpy as np

    assert samples.labels is not None and signature.classifier_output is not None
    model = open_model(path, provider)
    names = [tensor.name for tensor in signature.inputs]
    right = 0
    for start in range(0, len(positions), signature.batch_size):
        chosen = positions[start : start + signature.batch_size]
        batch = np.resize(chosen, signature.batch_size)
        inputs = {name: samples.inputs[name][batch] for name in names if name in samples.inputs}
        classes = model(inputs)[signature.classifier_output].argmax(axis=1)[: len(chosen)]
        right += int((classes == samples.labels[chosen]).sum())
    return right / len(positions)
