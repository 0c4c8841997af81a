"""Everything that can go wrong, as one tree.

::

    PipelineError
    ├── TransientError                  worth another attempt: retried
    │   ├── StorageUnavailableError     endpoint down, throttled, connection lost, timed out
    │   ├── ObjectChangedError          an object was overwritten while it was being read
    │   ├── ArtifactDamagedError        a stored artifact is missing, or its bytes are not those of its digest
    │   │   └── ArtifactElsewhereError  what a stage made is known, but its files are not on this machine
    │   ├── PrefectUnavailableError     the Prefect server does not answer
    │   ├── WorkerUnavailableError      a work pool has no live worker
    │   ├── TrainingFailedError         a rank ended badly, and another attempt can help (signal, crash, lost host)
    │   │   └── WorkerLostError         the worker that trained is gone: its machine, or the process of its run
    │   └── TrainingStalledError        training wrote nothing for too long: often a peer that was lost
    └── PermanentError                  the same attempt would fail again: never retried
        ├── InvalidInputError           what the user asked for cannot run; lists every problem found
        ├── RunCancelledError           a run was cancelled, or is not started again
        ├── StorageNotFoundError        no such bucket, object or prefix
        ├── StorageAccessError          wrong or missing credentials
        ├── UnsafeObjectKeyError        an object key would leave the staging directory
        ├── DiskFullError               there is, or would be, no room on this machine's disk
        ├── DataChangedError            staged data was changed while a training read it
        ├── ScriptDefectError           the training script cannot run as it is (import, syntax, arguments)
        ├── StageTimeoutError           a stage reached the time limit of its policy
        │   └── TrainingTimeoutError    training reached its deadline, and was stopped with all its ranks
        ├── WorldSizeError              the ranks do not form the world that was asked for
        │   └── NeverJoinedError        the script never joined the other ranks: each trained alone
        ├── MetricsError                metric records that cannot be read
        ├── ModelNotFoundError          training left no model where the export looks for one
        ├── ExportError                 the model cannot be expressed in ONNX as asked
        ├── ValidationFailedError       ONNX Runtime does not give the trained model's answers, or quality is short
        └── RegistrationError           the registry refused the model

A message says what happened, where, what was expected and found, and what to do. Third-party exceptions are
translated once, in the module that imports the third party. Every error survives pickling. Credentials of URLs never
stand in one, whatever was put into it.
"""

from trainyard.tasks.credentials import redacted


class PipelineError(Exception):
    """Base of every error that Trainyard raises on purpose.

    Args:
        message: What happened, where, expected and found, and what to do.
        details: Extra facts for programs, kept as attributes (and through pickling).
    """

    def __init__(self, message: str = "", **details: object) -> None:
        super().__init__(redacted(message))
        self.__dict__.update({name: _redacted(value) for name, value in details.items()})


def _redacted(value: object) -> object:
    if isinstance(value, str):
        return redacted(value)
    return tuple(map(_redacted, value)) if isinstance(value, tuple) else value


class TransientError(PipelineError):
    """The same attempt may succeed later; retry policies apply."""


class PermanentError(PipelineError):
    """The same attempt would fail again; never retried."""


class StorageUnavailableError(TransientError):
    """A storage endpoint did not answer, throttled us, or dropped the connection."""


class ObjectChangedError(TransientError):
    """An object was overwritten while it was being read; the next attempt lists it anew."""


class ArtifactDamagedError(TransientError):
    """A stored artifact is missing or its bytes do not match its digest; its stage makes it again."""


class ArtifactElsewhereError(ArtifactDamagedError):
    """What a stage made is known, but its files are not on this machine; its stage brings them."""


class PrefectUnavailableError(TransientError):
    """The Prefect server does not answer."""


class WorkerUnavailableError(TransientError):
    """A work pool has no live worker that could take a run."""


class TrainingFailedError(TransientError):
    """A rank ended badly in a way that another attempt, from the last checkpoint, may survive.

    Attributes:
        rank: The first rank that failed, or None where the launcher itself failed.
        exit_code: Its exit code, negative for a signal, or None.
    """

    rank: int | None = None
    exit_code: int | None = None


class WorkerLostError(TrainingFailedError):
    """The run that trained on a work pool crashed: its machine, its worker or its process is gone."""


class TrainingStalledError(TransientError):
    """Training made no progress for too long and was stopped; another attempt goes on from the last checkpoint."""


class InvalidInputError(PermanentError):
    """What was asked for cannot run.

    Attributes:
        problems: Every problem found, one sentence each.
    """

    problems: tuple[str, ...] = ()

    @classmethod
    def from_problems(cls, subject: str, problems: list[str]) -> "InvalidInputError":
        """Build the one message that names all problems."""
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  - {problem}" for problem in problems)
        return cls(f"{subject} cannot run: {count}; nothing was launched.\n{lines}", problems=tuple(problems))


class RunCancelledError(PermanentError):
    """A run was cancelled from outside, or has crashed too often to be started again."""


class StorageNotFoundError(PermanentError):
    """No such bucket, object or prefix."""


class StorageAccessError(PermanentError):
    """The storage refused the credentials, or there are none."""


class UnsafeObjectKeyError(PermanentError):
    """An object key cannot be turned into a file name inside the staging directory."""


class DiskFullError(PermanentError):
    """There is no room for the data on this machine's disk; what is there already stays, and is not transferred again.

    Attributes:
        needed_bytes: What would have been written, where that is known.
        free_bytes: What there was room for.
    """

    needed_bytes: int | None = None
    free_bytes: int | None = None


class DataChangedError(PermanentError):
    """Staged data was changed while a training read it: the model is of no version of the data.

    Another attempt would read what is there now; another run stages the data anew.

    Attributes:
        paths: The staged files that were changed.
    """

    paths: tuple[str, ...] = ()


class ScriptDefectError(PermanentError):
    """The training script cannot run as it is: another attempt would end at the same line.

    Attributes:
        rank: The first rank that failed.
        exit_code: Its exit code.
    """

    rank: int | None = None
    exit_code: int | None = None


class StageTimeoutError(PermanentError):
    """A stage reached the time limit of its policy."""


class TrainingTimeoutError(StageTimeoutError):
    """Training reached its deadline and was stopped."""


class WorldSizeError(PermanentError):
    """The ranks do not form the world that was asked for."""


class NeverJoinedError(WorldSizeError):
    """Several ranks ran a script that never joined the others: each trained alone."""


class MetricsError(PermanentError):
    """Metric records that cannot be read."""


class ModelNotFoundError(PermanentError):
    """Training left no model where the export looks for one."""


class ExportError(PermanentError):
    """The trained model cannot be expressed in ONNX as asked."""


class ValidationFailedError(PermanentError):
    """The ONNX model did not pass its gate, so it is not registered.

    Attributes:
        report_uri: Where the full report is.
        page_path: A local HTML page that shows it.
    """

    report_uri: str | None = None
    page_path: str | None = None


class RegistrationError(PermanentError):
    """The registry refused the model."""
