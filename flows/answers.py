"""What a flow run made and how it ended, in the artifact store: ``answers/<flow run id>/``.

Whoever waits for a run from another process or machine reads it there. Prefect's own results would need a result
storage of their own that both sides reach; the store is one already.
"""

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from prefect.runtime import flow_run
from pydantic import BaseModel, Field, ValidationError

from trainyard import __version__
from trainyard.tasks import errors
from trainyard.tasks.artifacts.products import ANSWERS
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.credentials import redacted, redacted_url
from trainyard.tasks.errors import InvalidInputError, PipelineError, StorageNotFoundError
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.policy import StageName
from trainyard.tasks.specs.spec import Spec

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R", bound=BaseModel)
Result = TypeVar("Result", bound=BaseModel)


class Failure(Spec):
    """An error, so that it can be raised again elsewhere."""

    type: str
    """Its class."""

    message: str
    """What it says."""

    details: dict[str, Any] = Field(default_factory=dict)
    """Its attributes."""

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """An error as a value; attributes that JSON has no words for become text."""
        details = {name: _plain(value) for name, value in vars(error).items() if isinstance(error, PipelineError)}
        return cls(type=type(error).__name__, message=redacted(str(error)), details=details)

    def error(self) -> PipelineError:
        """The error again; one that is not of our tree becomes a ``PipelineError``, which is not retried."""
        found = getattr(errors, self.type, None)
        if isinstance(found, type) and issubclass(found, PipelineError):
            return found(self.message, **self.details)
        return PipelineError(f"{self.type}: {self.message}")


class Answer(Spec):
    """What a run gave, or why it failed."""

    value: dict[str, Any] | None = None
    """The result, as JSON."""

    failure: Failure | None = None
    """The error."""


def answered(function: Callable[P, R]) -> Callable[P, R]:
    """Keep how each run of a flow's function ends; its parameter ``store`` names the store.

    A run that is stopped from outside (cancelled, killed) leaves no answer.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def answering(*args: P.args, **kwargs: P.kwargs) -> R:
        store_url = signature.bind(*args, **kwargs).arguments.get("store") or Settings().store_url
        try:
            result = function(*args, **kwargs)
        except Exception as error:  # whatever ended the run is its answer, and goes on as it was
            _keep(store_url, Answer(failure=Failure.of(error)))
            raise
        _keep(store_url, Answer(value=result.model_dump(mode="json")))
        return result

    return answering


def read_answer(store: ArtifactStore, run_id: object, result_type: type[Result]) -> Result:
    """What a run gave.

    Raises:
        StorageNotFoundError: The run left no answer in this store: it has not ended, or was stopped.
        InvalidInputError: Another version of Trainyard wrote it.
        PipelineError: Why the run failed.
    """
    with _of_our_version(run_id):
        answer = Answer.model_validate_json((store.root / f"{ANSWERS}{run_id}/answer.json").read_bytes())
        result = None if answer.failure else result_type.model_validate(answer.value)
    if result is None:
        assert answer.failure is not None
        raise answer.failure.error()
    return result


def keep_product(store_url: str, stage: StageName, product: BaseModel) -> None:
    """Keep what a stage of this run made, for whoever asks before the run has ended."""
    _write(store_url, f"{ANSWERS}{flow_run.id}/{stage}.json", product)


def read_kept(store: ArtifactStore, run_id: object, stage: StageName, product_type: type[Result]) -> Result | None:
    """What a stage of a run made, or None where it has not (yet).

    Raises:
        InvalidInputError: Another version of Trainyard wrote it.
    """
    try:
        with _of_our_version(run_id):
            return product_type.model_validate_json((store.root / f"{ANSWERS}{run_id}/{stage}.json").read_bytes())
    except StorageNotFoundError:
        return None


@contextmanager
def _of_our_version(run_id: object) -> Iterator[None]:
    """Read what a run left, which refuses what it does not know."""
    try:
        yield
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "all of it"
        raise InvalidInputError(
            f"What the run {run_id} left was written by another version of trainyard than this one ({__version__}), "
            f"which does not understand it ({place}: {problem['msg']}). Install the version of the workers here, or "
            "this one there."
        ) from error


def _keep(store_url: str, answer: Answer) -> None:
    _write(store_url, f"{ANSWERS}{flow_run.id}/answer.json", answer)


def _write(store_url: str, path: str, value: BaseModel) -> None:
    """A store that cannot keep it must not hide how the run goes."""
    if not flow_run.id:
        return
    try:
        (ArtifactStore(store_url).root / path).write_bytes(value.model_dump_json(indent=1).encode())
    except (PipelineError, OSError, ValidationError) as error:  # OSError: of a local disk that may only be read
        log.warning("The store %s does not keep how this run ended: %s", redacted_url(store_url), error)


def _plain(value: object) -> Any:
    return value if isinstance(value, (str, int, float, bool, list, tuple, dict, type(None))) else str(value)
