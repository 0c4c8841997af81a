"""The bundle as one unit: its description names every file with its digest, and what it was made of."""

from pathlib import Path

from pydantic import ValidationError

from trainyard.tasks.artifacts.digests import canonical_json, digest_file
from trainyard.tasks.artifacts.references import TreeEntry
from trainyard.tasks.errors import ArtifactDamagedError
from trainyard.tasks.models.kinds import ModelKind
from trainyard.tasks.models.layout import BUNDLE_FILE
from trainyard.tasks.specs.results import ExportAttempt
from trainyard.tasks.specs.spec import Spec


class BundleDescription(Spec):
    """``bundle.json``: what belongs together, and how it was made."""

    files: tuple[TreeEntry, ...]
    """Every other file of the bundle, by path; external data is among them."""

    kind: ModelKind
    """What the script left."""

    was_training: bool
    """Whether it was saved in training mode; it was exported in evaluation mode all the same."""

    opset: int
    """Opset version of the default ONNX domain."""

    attempts: tuple[ExportAttempt, ...]
    """Every way of exporting that was tried; the last one succeeded."""

    provenance: dict[str, str]
    """What it was made of; the same stands in the model's metadata."""


def describe_files(folder: Path) -> tuple[TreeEntry, ...]:
    """Every file of a bundle's folder but its description, with its digest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != BUNDLE_FILE)
    return tuple(_entry(path, folder) for path in paths)


def write_description(description: BundleDescription, folder: Path) -> None:
    """Write ``bundle.json``."""
    (folder / BUNDLE_FILE).write_bytes(canonical_json(description.model_dump(mode="json")))


def verify_bundle(folder: Path) -> BundleDescription:
    """Prove that a folder holds a whole bundle: every file is there, and is the one that was exported.

    Raises:
        ArtifactDamagedError: A file is missing, was swapped, or does not belong; names all of them.
    """
    path = folder / BUNDLE_FILE
    try:
        description = BundleDescription.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise ArtifactDamagedError(f"{path} is missing or damaged, so the bundle cannot be proven whole.") from error
    expected = {entry.path: entry for entry in description.files}
    found = {entry.path: entry for entry in describe_files(folder)}
    problems = [f"{name} is missing" for name in sorted(set(expected) - set(found))]
    problems += [f"{name} does not belong to it" for name in sorted(set(found) - set(expected))]
    problems += [
        f"{name} was swapped or damaged: expected bytes of {expected[name].sha256[:12]}, "
        f"found {found[name].sha256[:12]}"
        for name in sorted(set(expected) & set(found))
        if expected[name].sha256 != found[name].sha256
    ]
    if problems:
        raise ArtifactDamagedError(f"The ONNX bundle is not whole: {'; '.join(problems)}. Export the model again.")
    return description


def _entry(path: Path, folder: Path) -> TreeEntry:
    sha256, num_bytes = digest_file(path)
    return TreeEntry(path=path.relative_to(folder).as_posix(), sha256=sha256, num_bytes=num_bytes)
