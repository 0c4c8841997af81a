"""What a pipeline and the flow that trains for it on a work pool hand each other."""

from pydantic import Field

from trainyard.tasks.artifacts.products import StagedData, TrainedRun
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.specs.policy import StageName
from trainyard.tasks.specs.results import StageOutcome
from trainyard.tasks.specs.spec import Spec


class Origin(Spec):
    """What a pipeline hands to the machine that trains for it."""

    source: ArtifactRef = Field(title="Source snapshot")
    """The source in the store; it takes the place of ``source_directory``."""

    name: str = Field(title="Project")
    """The source directory's name."""

    run_folder: str | None = Field(default=None, title="Run folder")
    """Where the pipeline notes how its stages went."""

    presence: str | None = Field(default=None, title="Presence")
    """What in the store the pipeline renews while it waits."""


class TrainedOnPool(Spec):
    """What a training flow answers."""

    staged: StagedData
    """The data, on the machine that trained."""

    trained: TrainedRun
    """What training made."""

    outcomes: dict[StageName, StageOutcome]
    """How both stages went there."""
