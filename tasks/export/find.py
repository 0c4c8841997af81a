"""Find the saved model in what training left behind."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from trainyard.tasks.artifacts.references import TreeEntry
from trainyard.tasks.errors import ExportError, ModelNotFoundError
from trainyard.tasks.models.kinds import SUFFIXES
from trainyard.tasks.models.program import HOW_TO_SAVE
from trainyard.tasks.specs.export import OnnxExport

_PROGRAM_SUFFIX = ".pt2"
_MOST_LISTED = 20
_OTHERS = ", ".join(suffix for suffix in SUFFIXES if suffix != _PROGRAM_SUFFIX)
_LOOKED_FOR = f"one file *{_PROGRAM_SUFFIX} (a torch.export program), else one that ends in {_OTHERS}"


def find_model(settings: OnnxExport, entries: tuple[TreeEntry, ...], left_outside: Sequence[str] = ()) -> str:
    """The path, inside ``outputs/``, of the model to export.

    Args:
        settings: ``model_file`` names it; otherwise it is the only program (``.pt2``), else the only file that ends
            as a saved model does.
        entries: The files of the run's outputs.
        left_outside: Files that the script wrote elsewhere, which are not among them.

    Raises:
        ModelNotFoundError: There is none, or more than one and no name; says what was looked for and found.
    """
    paths = [entry.path for entry in entries]
    if settings.model_file is not None:
        if settings.model_file in paths:
            return settings.model_file
        raise ModelNotFoundError(
            _not_found(f"the file {settings.model_file!r} (OnnxExport.model_file)", entries, left_outside)
        )
    by_content = {entry.sha256: entry.path for entry in reversed(entries)}  # latest.pt may be a copy of epoch-9.pt
    paths = sorted(by_content.values())
    programs = [path for path in paths if is_program_name(path)]
    found = programs or [path for path in paths if PurePosixPath(path).suffix in SUFFIXES]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelNotFoundError(_not_found(_LOOKED_FOR, entries, left_outside))
    raise ModelNotFoundError(
        f"Which model to export is not clear: the run's outputs hold {len(found)} "
        f"{'programs' if programs else 'saved models'}, {', '.join(found[:_MOST_LISTED])}. Name one: "
        f"OnnxExport(model_file={found[0]!r})."
    )


def is_program_name(path: str) -> bool:
    """Whether a file is named as only a program is."""
    return path.endswith(_PROGRAM_SUFFIX)


def not_a_model(
    error: ExportError, entries: tuple[TreeEntry, ...], left_outside: Sequence[str] = ()
) -> ModelNotFoundError:
    """The error where a file only ends as a saved model does, and nobody named it as one."""
    return ModelNotFoundError(f"{_not_found(_LOOKED_FOR, entries, left_outside)} ({error})")


def _not_found(looked_for: str, entries: tuple[TreeEntry, ...], left_outside: Sequence[str]) -> str:
    elsewhere = (
        f" The script also wrote {', '.join(left_outside)}: only what lies below ./outputs and ./logs is kept."
        if left_outside
        else ""
    )
    return (
        f"Training left no model to export. Looked for {looked_for} in the run's outputs (what the script "
        f"wrote below ./outputs); found {_listed(entries)}.{elsewhere} {HOW_TO_SAVE}"
    )


def _listed(entries: tuple[TreeEntry, ...]) -> str:
    if not entries:
        return "no file at all"
    shown = ", ".join(f"{entry.path} ({entry.num_bytes:,} bytes)" for entry in entries[:_MOST_LISTED])
    rest = len(entries) - _MOST_LISTED
    return f"instead: {shown}" + (f" and {rest} more" if rest > 0 else "")
