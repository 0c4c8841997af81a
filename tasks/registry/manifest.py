"""The manifest of a registered version: its files, its proof and its lineage."""

from datetime import datetime

from pydantic import Field

from trainyard.tasks.artifacts.products import Lineage
from trainyard.tasks.artifacts.references import ArtifactRef, TreeEntry
from trainyard.tasks.specs.results import ValidationSummary
from trainyard.tasks.specs.spec import Spec


class ModelManifest(Spec):
    """What a registered version is; written last, so a version without one does not exist."""

    name: str
    """The model's name."""

    version: int = Field(ge=1)
    """The version."""

    registered: datetime
    """When, in UTC."""

    folder: str
    """Where its files are, inside the version's directory: a name that its writer alone had."""

    bundle: ArtifactRef
    """The ONNX bundle in the store's objects."""

    files: tuple[TreeEntry, ...]
    """Every file of the version beside this one, by path inside the folder."""

    validation: ValidationSummary
    """The verdict; all of it is in ``report.json``."""

    lineage: Lineage
    """Where the model comes from."""
