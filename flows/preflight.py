"""Refuse bad input before anything is launched, all problems at once."""

import logging
import re

from trainyard.flows.work_pools import pool_problems
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.credentials import redacted
from trainyard.tasks.errors import InvalidInputError, PermanentError, TransientError
from trainyard.tasks.export.preflight import export_problems
from trainyard.tasks.specs.estimator import PyTorch
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.staging.probe import probe_reference
from trainyard.tasks.training.preflight import named_work_pool, training_problems
from trainyard.tasks.validation.preflight import validation_problems

log = logging.getLogger(__name__)

_STORAGES = "s3 s3a gs gcs az abfs abfss adl oss hdfs webhdfs sftp ssh smb ftp"
STORAGE_URL = re.compile(rf"({'|'.join(_STORAGES.split())})://.+")
"""What data is named by; ``http`` and ``file`` as well name servers and meeting places of ranks."""

MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def check_inputs(
    estimator: PyTorch,
    model_name: str,
    store_url: str,
    export: OnnxExport | None = None,
    validation: OrtValidation | None = None,
) -> None:
    """Look at everything a run needs: source, launcher, devices, data, store, names, model factory, providers.

    Raises:
        InvalidInputError: Names every problem found.
    """
    problems = [
        *training_problems(estimator),
        *pool_problems(named_work_pool(estimator)),
        *_data_problems(estimator),
        *_store_problems(store_url),
        *_name_problems(model_name),
        *(export_problems(export, estimator.source_directory) if export else []),
        *(validation_problems(validation) if export and validation else []),
    ]
    if problems:
        raise InvalidInputError.from_problems("The training pipeline", problems)
    for warning in text_warnings(estimator):
        log.warning("%s", warning)


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
    return []


def _name_problems(model_name: str) -> list[str]:
    if MODEL_NAME.fullmatch(model_name):
        return []
    return [f"model_name {model_name!r} must be lower-case letters, digits, '.', '_' and '-', for example 'digits-cnn'"]
