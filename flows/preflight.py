"""Refuse bad input before anything is launched, all problems at once."""

import logging
import re

from trainyard.flows.targets import with_loaded_target
from trainyard.flows.valid_part import STAND_IN
from trainyard.flows.work_pools import pool_problems
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.credentials import redacted
from trainyard.tasks.errors import InvalidInputError, PermanentError, PrefectUnavailableError, TransientError
from trainyard.tasks.export.preflight import export_problems
from trainyard.tasks.settings import Settings, store_problem
from trainyard.tasks.specs.datastore import DataReference, Datastore
from trainyard.tasks.specs.estimator import PyTorch, as_reference
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.specs.hosts import hosts_block
from trainyard.tasks.specs.urls import STORAGE_URL
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.staging.probe import probe_reference
from trainyard.tasks.training.preflight import named_work_pool, training_problems
from trainyard.tasks.validation.preflight import validation_problems

log = logging.getLogger(__name__)

MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def check_inputs(
    estimator: PyTorch,
    model_name: str,
    store_url: str,
    export: OnnxExport | None = None,
    validation: OrtValidation | None = None,
) -> PyTorch:
    """Look at everything a run needs: source, launcher, devices, data, store, names, model factory, providers.

    Returns:
        The estimator, with the hosts that its compute target names.

    Raises:
        InvalidInputError: Names every problem found.
        PrefectUnavailableError: The Prefect server that holds the hosts does not answer.
    """
    loaded, unknown_target = _load_target(estimator)
    problems = [*unknown_target, *_input_problems(loaded, model_name, store_url, export, validation, has_server=True)]
    if problems:
        raise InvalidInputError.from_problems("The training pipeline", problems)
    for warning in text_warnings(loaded):
        log.warning("%s", warning)
    return loaded


def problems_before_a_run(
    estimator: PyTorch,
    model_name: str,
    store_url: str,
    export: OnnxExport | None,
    validation: OrtValidation,
    *,
    has_server: bool,
) -> list[str]:
    """What ``check_inputs`` would find wrong, one sentence each, as far as that is known without starting anything.

    Args:
        estimator: The training job.
        model_name: Name in the registry.
        store_url: The artifact store.
        export: How the model becomes ONNX.
        validation: What the ONNX model must prove.
        has_server: Whether there is a Prefect server to be asked for blocks and work pools.
    """
    unknown_target: list[str] = []
    if has_server:
        try:
            estimator, unknown_target = _load_target(estimator)
        except PrefectUnavailableError:  # which the run itself will say
            has_server = False
    if not has_server:
        estimator = _without_blocks(estimator)
    found = _input_problems(estimator, model_name, store_url, export, validation, has_server=has_server)
    return [*unknown_target, *found]


def _load_target(estimator: PyTorch) -> tuple[PyTorch, list[str]]:
    try:
        return with_loaded_target(estimator), []
    except InvalidInputError as error:
        return estimator.model_copy(update={"compute_target": STAND_IN}), [str(error)]


def _without_blocks(estimator: PyTorch) -> PyTorch:
    """The job without what only a Prefect server knows."""
    changes: dict[str, object] = {
        name: {key: value for key, value in getattr(estimator, name).items() if not _is_in_block(value)}
        for name in ("script_params", "inputs")
    }
    if _is_in_block(estimator.resume_from):
        changes["resume_from"] = None
    if isinstance(estimator.compute_target, str) and hosts_block(estimator.compute_target):
        changes["compute_target"] = STAND_IN
    return estimator.model_copy(update=changes)


def _is_in_block(value: object) -> bool:
    return isinstance(value, (Datastore, DataReference)) and as_reference(value).datastore.block is not None


def _input_problems(
    estimator: PyTorch,
    model_name: str,
    store_url: str,
    export: OnnxExport | None,
    validation: OrtValidation | None,
    *,
    has_server: bool,
) -> list[str]:
    pool = named_work_pool(estimator)
    problems = [
        *training_problems(estimator),
        *(pool_problems(pool, estimator) if has_server and pool != STAND_IN else []),
        *_data_problems(estimator),
        *_store_problems(store_url),
        *_name_problems(model_name),
        *(export_problems(export, estimator.source_directory) if export else []),
        *(validation_problems(validation) if export and validation else []),
    ]
    return [problem for problem in problems if STAND_IN not in problem]


def text_warnings(estimator: PyTorch) -> list[str]:
    """What to say of arguments that look like data and are texts: a script may read them itself, so they are right."""
    texts = {name: value for name, value in estimator.script_params.items() if isinstance(value, str)}
    return [
        f"The script gets {name} as the text {redacted(text)!r}, and nothing is staged for it. If it is data, write "
        f"Datastore(url=...) in Python, or {name}: {{url: ...}} in a pipeline file: the script then gets a local path "
        "to verified files."
        for name, text in texts.items()
        if STORAGE_URL.fullmatch(text.strip())
    ]


def _data_problems(estimator: PyTorch) -> list[str]:
    problems = []
    for reference in estimator.references:
        try:
            probe_reference(reference)
        except PermanentError as error:
            problems.append(str(error))
        except TransientError:
            continue  # may be gone in a moment: the stage's retries see to it
    return problems


def _store_problems(store_url: str) -> list[str]:
    try:
        ArtifactStore(store_url)
    except PermanentError as error:
        return [f"store: {error}"]
    problem = store_problem(store_url, Settings().home)
    return [f"store {store_url}: {problem}"] if problem else []


def _name_problems(model_name: str) -> list[str]:
    if MODEL_NAME.fullmatch(model_name):
        return []
    return [f"model_name {model_name!r} must be lower-case letters, digits, '.', '_' and '-', for example 'digits-cnn'"]
