"""Where staged datasets live on this machine: ``<home>/datasets/<sha256>/data/``."""

import os
from contextlib import suppress
from pathlib import Path

from trainyard.tasks.artifacts.products import StagedDataset
from trainyard.tasks.errors import ArtifactDamagedError


def dataset_directory(home: Path, sha256: str) -> Path:
    """The directory that holds the objects of a dataset, each below its key."""
    return home / "datasets" / sha256 / "data"


def touch_dataset(home: Path, sha256: str) -> None:
    """Note that a dataset was used; 'trainyard gc' removes the least recently used."""
    with suppress(OSError):
        os.utime(dataset_directory(home, sha256).parent)


def dataset_path(home: Path, dataset: StagedDataset) -> Path:
    """What a training script is given for a data reference: a directory, or the file of a single object.

    Args:
        home: The home directory that the data was staged below.
        dataset: The dataset.

    Raises:
        ArtifactDamagedError: The dataset is not on this machine; staging it again helps.
    """
    directory = dataset_directory(home, dataset.sha256)
    if not directory.is_dir():
        raise ArtifactDamagedError(f"{dataset.uri} is not staged on this machine: there is no {directory}.")
    if not dataset.single_object:
        return directory
    files = sorted(directory.iterdir())
    if len(files) != 1:
        raise ArtifactDamagedError(f"{directory} should hold the one object {dataset.uri}, and has {len(files)}.")
    return files[0]
