"""A pipeline in a YAML or JSON file: the parameters of ``training_pipeline``, for ``trainyard run``."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from trainyard.flows.setting_problems import setting_problems
from trainyard.flows.valid_part import STAND_IN, new_problems, valid_part
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.estimator import PyTorch
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.specs.policy import STAGE_NAMES, StageName, StagePolicy
from trainyard.tasks.specs.spec import Spec
from trainyard.tasks.specs.urls import OpenUrl
from trainyard.tasks.specs.validation import OrtValidation


class PipelineFile(Spec):
    """What a pipeline file may say; the same names as the flow's parameters."""

    estimator: PyTorch
    """The training job."""

    export: OnnxExport | None = OnnxExport()
    """How the model becomes ONNX; null ends the pipeline after the metrics."""

    validation: OrtValidation = OrtValidation()
    """What the ONNX model must prove."""

    model_name: str | None = None
    """Name in the registry."""

    policies: dict[StageName, StagePolicy] = Field(default_factory=dict)
    """Retries, timeout and cache by stage."""

    store: OpenUrl | None = None
    """URL of the artifact store."""

    @property
    def stages(self) -> tuple[StageName, ...]:
        """The stages that it has."""
        return STAGE_NAMES if self.export is not None else STAGE_NAMES[: STAGE_NAMES.index("export")]

    def parameters(self) -> dict[str, Any]:
        """Arguments for ``training_pipeline``."""
        return {name: getattr(self, name) for name in type(self).model_fields}


def load_pipeline_file(
    path: Path, overrides: Iterable[str] = (), check: Callable[[PipelineFile], list[str]] = lambda pipeline: []
) -> PipelineFile:
    """Read a pipeline file. Relative paths in it are relative to the file.

    Args:
        path: A YAML file (JSON is YAML too).
        overrides: ``path.to.key=value`` texts, the value in YAML; for example ``estimator.script_params.--epochs=5``.
        check: Finds what else would keep the pipeline from running; where values were refused, in what is left.

    Raises:
        InvalidInputError: The file cannot be read, or what it says cannot run; names every problem.
    """
    content = _read(path)
    for override in overrides:
        _apply(content, override)
    anchor = _Anchor(path.resolve().parent)
    anchor.paths_of(content)
    pipeline, errors = valid_part(PipelineFile, content)
    first, *later = [setting_problems(error, PipelineFile, content) for error in errors] or [[]]
    behind = [problem for problems in later for problem in problems if _is_the_persons(problem)]
    problems = list(dict.fromkeys([*anchor.problems, *first, *behind]))
    if pipeline is not None:
        problems += new_problems(check(pipeline), problems)
    if problems or pipeline is None:
        raise InvalidInputError.from_problems(str(path), problems)
    return pipeline


def _is_the_persons(problem: str) -> bool:
    """Whether a problem of what is left of a file is one of the file's, and not of what was left out of it."""
    return STAND_IN not in problem and not problem.endswith("Field required")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(f"The pipeline file {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"The pipeline file {path} is not UTF-8 text: {error}.") from error
    except yaml.YAMLError as error:
        raise InvalidInputError(f"The pipeline file {path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise InvalidInputError(f"The pipeline file {path} must hold keys such as 'estimator:', not {content!r:.60}.")
    return content


def _apply(content: dict[str, Any], override: str) -> None:
    keys, equals, text = override.partition("=")
    if not equals or not keys:
        raise InvalidInputError(f"--set {override!r}: write path.to.key=value, for example validation.atol=1e-4")
    *folders, last = keys.split(".")
    place: Any = content
    for folder in folders:
        place = place.setdefault(folder, {}) if isinstance(place, dict) else None
        if place is None:
            break
    if not isinstance(place, dict):
        raise InvalidInputError(f"--set {override!r}: {'.'.join(folders)} holds a value, not keys.")
    try:
        place[last] = yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise InvalidInputError(f"--set {override!r}: the value is not YAML; quote it if it is a text.") from error


@dataclass(frozen=True, slots=True)
class _Anchor:
    """Makes the relative paths of a file absolute: source directory, local datastores, local store."""

    folder: Path
    """Where the file is."""

    problems: list[str] = field(default_factory=list)
    """Paths that lead nowhere on this machine, one sentence each."""

    def paths_of(self, content: dict[str, Any]) -> None:
        """Anchor what a file holds, in place."""
        if isinstance(content.get("store"), str):
            content["store"] = self._url("store", content["store"])
        estimator = content.get("estimator")
        if not isinstance(estimator, dict):
            return
        if isinstance(estimator.get("source_directory"), str):
            source = os.path.expanduser(estimator["source_directory"])
            is_unknown = source.startswith("~")  # which the estimator refuses
            estimator["source_directory"] = source if is_unknown else str(self.folder / source)
        for values in (estimator.get("script_params"), estimator.get("inputs")):
            for name, value in values.items() if isinstance(values, dict) else ():
                self._datastore(str(name), value)
        inputs = estimator.get("inputs")
        if isinstance(inputs, dict):  # a text is a datastore there; as a script parameter it is a text
            inputs.update({name: self._url(name, url) for name, url in inputs.items() if isinstance(url, str)})

    def _datastore(self, name: str, value: Any) -> None:
        store = value.get("datastore", value) if isinstance(value, dict) else None
        if isinstance(store, str):
            value["datastore"] = self._url(name, store)
        elif isinstance(store, dict) and isinstance(store.get("url"), str):
            store["url"] = self._url(name, store["url"])

    def _url(self, name: str, url: str) -> str:
        """Not ``Path.as_uri``: fsspec takes a URL's path as it is, without undoing ``%20``."""
        if "://" in url:
            return url
        try:
            return f"file://{(self.folder / Path(url).expanduser()).resolve()}"
        except RuntimeError:
            self.problems.append(f"{name}: {url!r}: this machine knows no such user")
            return url
