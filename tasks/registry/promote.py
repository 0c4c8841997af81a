"""Move the champion by hand: forward through the gate, or back to what was before."""

from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ArtifactDamagedError, RegistrationError, StorageNotFoundError
from trainyard.tasks.registry.aliases import Decision, Move, move_champion, reigns
from trainyard.tasks.registry.manifest import ModelManifest
from trainyard.tasks.registry.register import verify_files
from trainyard.tasks.registry.versions import read_manifest, version_location
from trainyard.tasks.specs.quality import is_worse


def promote(store: ArtifactStore, name: str, version: int, *, override: str | None = None) -> Move:
    """Make a version the champion.

    The gate: it passed validation, all its bytes are there, and on the same labelled samples no metric that models are
    compared by (``ValidationSummary.compared_by``) is worse than the present champion's.

    Args:
        store: Where the registry is.
        name: The model.
        version: The new champion.
        override: Why to move although it is worse than the champion, or cannot be compared with it; kept with the move.

    Raises:
        RegistrationError: The gate is closed; says why.
        ArtifactDamagedError: The version is not whole.
        StorageNotFoundError: There is no such version.
    """
    challenger = _whole(store, name, version)
    if not challenger.validation.passed:
        raise RegistrationError(f"Version {version} of {name} did not pass validation, so it cannot be champion.")

    def decide(moves: list[Move]) -> Decision:
        if not moves:
            return Decision(version, "promoted by hand, the first champion")
        present = read_manifest(store, name, moves[-1].version)
        if present.version == version:
            raise RegistrationError(f"Version {version} of {name} is the champion already.")
        objection = _objection(challenger, present)
        if objection and override is None:
            raise RegistrationError(
                f"Version {version} of {name} does not replace the champion, version {present.version}: {objection}. "
                "To do so all the same, give a reason: trainyard models promote --override 'why'."
            )
        return Decision(version, f"{override} (although {objection})" if objection else _better(challenger, present))

    return move_champion(store, name, decide)


def roll_back(store: ArtifactStore, name: str, reason: str) -> Move:
    """Give the champion back to the version that was it before.

    Raises:
        RegistrationError: There was none before.
        ArtifactDamagedError: That version is not whole.
    """

    def decide(moves: list[Move]) -> Decision:
        earlier = reigns(moves)[:-1]
        if not earlier:
            raise RegistrationError(f"The champion of {name} cannot be rolled back: no version was it before.")
        _whole(store, name, earlier[-1])
        return Decision(earlier[-1], reason, "rollback")

    return move_champion(store, name, decide)


def _whole(store: ArtifactStore, name: str, version: int) -> ModelManifest:
    manifest = read_manifest(store, name, version)
    location = version_location(store, name, version)
    try:
        verify_files(location, manifest)
    except StorageNotFoundError as error:
        raise ArtifactDamagedError(f"Version {version} of {name} at {location.url} is not whole: {error}") from error
    return manifest


def _objection(challenger: ModelManifest, present: ModelManifest) -> str | None:
    """Why the challenger should not replace the champion, or None."""
    new, old = challenger.validation, present.validation
    if new.samples_sha256 is None or new.samples_sha256 != old.samples_sha256 or not old.metrics:
        return "they were not measured on the same labelled samples"
    metrics = _compared_by(challenger, present)
    missing = [metric for metric in metrics if metric not in new.metrics or metric not in old.metrics]
    if missing:
        return f"{', '.join(missing)} was not measured of both"
    if any(is_worse(metric, new.metrics[metric], old.metrics[metric]) for metric in metrics):
        return f"it is worse on the same samples ({_values(challenger, present)})"
    return None


def _better(challenger: ModelManifest, present: ModelManifest) -> str:
    compared = _values(challenger, present)
    return f"promoted by hand, not worse than version {present.version} on the same samples ({compared})"


def _compared_by(challenger: ModelManifest, present: ModelManifest) -> list[str]:
    return sorted(challenger.validation.compared_by or present.validation.metrics)


def _values(challenger: ModelManifest, present: ModelManifest) -> str:
    new, old = challenger.validation.metrics, present.validation.metrics
    names = _compared_by(challenger, present)
    return ", ".join(f"{metric} {new[metric]:.4f} against {old[metric]:.4f}" for metric in names)
