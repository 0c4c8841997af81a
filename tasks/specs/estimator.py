"""The estimator: a training job in one object, as in the SDK generation whose scripts must keep running."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from trainyard.tasks.credentials import credentials_problem
from trainyard.tasks.specs.datastore import DataReference, Datastore, from_block, read_data
from trainyard.tasks.specs.form import ARGUMENTS, DATA, VARIABLES
from trainyard.tasks.specs.hosts import Hosts
from trainyard.tasks.specs.spec import Spec
from trainyard.tasks.specs.urls import STORAGE_URL

DATA_FORMS = "{url: ...} or {datastore: {url: ...}, key: ...}"


def _read_value(value: Any) -> Any:
    value = from_block(value)
    if not isinstance(value, (bool, int, float, str, dict, Datastore, DataReference)):
        raise ValueError(f"must be a text, a number, true or false, or data: {DATA_FORMS}")
    return read_data(value)


def _read_data(value: Any) -> Any:
    value = from_block(value)
    if value is not None and not isinstance(value, (str, dict, Datastore, DataReference)):
        raise ValueError(f"must be data: a URL, {DATA_FORMS}")
    return Datastore(url=value) if isinstance(value, str) else read_data(value)


def _read_target(value: Any) -> Any:
    return Hosts.model_validate(value) if isinstance(value, dict) else value


# Read before pydantic tries the alternatives one by one: the problems of each would be reported, and only one is meant.
# A discriminated union would do it too, and turn the form in Prefect's UI into a JSON editor.
ScriptValue = Annotated[bool | int | float | str | DataReference | Datastore, BeforeValidator(_read_value)]
Data = Annotated[DataReference | Datastore, BeforeValidator(_read_data)]
OptionalData = Annotated[DataReference | Datastore | None, BeforeValidator(_read_data)]
Target = Annotated[Annotated[str, Field(min_length=1)] | Hosts, BeforeValidator(_read_target)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class PyTorch(Spec):
    """A PyTorch training script, and how it should run.

    The script runs unchanged: its arguments arrive as argv, never through a shell; it works in a fresh copy of
    the source directory; what it writes to ``./outputs`` and ``./logs`` is kept.
    """

    source_directory: str = Field(min_length=1, title="Source directory", examples=["examples/digits"])
    """Directory with the training project. A copy is run; nothing is ever written to it."""

    entry_script: str = Field(min_length=1, title="Entry script", examples=["train.py"])
    """The script to run, relative to the source directory."""

    script_params: Annotated[dict[str, ScriptValue], ARGUMENTS] = Field(default_factory=dict, title="Script parameters")
    """Argument to value, in order. An empty string makes a bare flag; a datastore or data reference becomes the
    local path of its staged data; other values are passed as ``str(value)``."""

    inputs: Annotated[dict[VariableName, Data], DATA] = Field(default_factory=dict, title="Inputs")
    """More data, by the name of the environment variable that gives the script its local path."""

    compute_target: Target = Field(default="local", title="Compute target")
    """Where to train: ``local`` is the machine that runs the pipeline; ``hosts/NAME``, or a ``Hosts`` value, are
    machines reached over ssh (NAME is a Prefect block of type Trainyard Hosts)."""

    node_count: int = Field(default=1, ge=1, le=4096, title="Nodes")
    """Number of machines."""

    process_count_per_node: int = Field(default=1, ge=1, le=1024, title="Processes per node")
    """Training processes on each machine."""

    distributed_backend: Literal["mpi", "gloo", "nccl"] | None = Field(default=None, title="Distributed backend")
    """``mpi``: Horovod (or mpi4py) ranks under Open MPI. ``gloo`` and ``nccl``: torch.distributed ranks under
    torchrun. Needed for more than one process."""

    use_gpu: bool = Field(default=False, title="Use GPUs")
    """True: a machine without a visible CUDA device is an error. False: devices are hidden from the script."""

    framework_version: str | None = Field(default=None, title="PyTorch version", examples=["2.13"])
    """The torch that the script needs: ``2.13`` accepts every ``2.13.x``, ``>=2.6,<3`` what PEP 440 says. Asserted
    before anything is launched. First-generation estimators installed the version they were told; here Horovod is
    built for the torch that is installed, and the training's cache key holds it, so it is never replaced."""

    pip_packages: tuple[str, ...] = Field(default=(), title="pip packages", examples=[["scikit-learn>=1.5"]])
    """Requirements that the script needs beside torch and Horovod: names, versions, ``name @ https://...``. They are
    put into a cached layer on top of what is installed; the SDK built an image instead."""

    pip_requirements_file: str | None = Field(default=None, title="pip requirements file")
    """A requirements file inside the source directory, relative to it; its requirements add to ``pip_packages``."""

    conda_packages: tuple[str, ...] = Field(default=(), title="conda packages")
    """Programs and libraries for micromamba, mamba or conda, where one is installed. Torch, Horovod and Python stay
    those that are installed."""

    conda_dependencies_file: str | None = Field(default=None, title="conda dependencies file")
    """A conda environment file (YAML) inside the source directory, relative to it; its ``pip`` section adds to
    ``pip_packages``."""

    environment_variables: Annotated[dict[VariableName, str], VARIABLES] = Field(
        default_factory=dict, title="Environment variables"
    )
    """Set for every training process. No secrets: parameters are shown in the Prefect UI."""

    max_run_duration_seconds: float | None = Field(default=None, gt=0, title="Longest run (seconds)")
    """Deadline of one training attempt."""

    stall_timeout_s: float | None = Field(default=None, gt=0, title="Longest silence (seconds)")
    """A run without a new log line, metric or checkpoint for so long is stopped, after a stack dump of every rank.
    Off by default."""

    resume_from: OptionalData = Field(default=None, title="Resume from")
    """Checkpoints to begin with: put into ``TRAINYARD_CHECKPOINT_DIR`` where this training has none of its own yet."""

    shm_size: str | None = Field(default=None, pattern=r"^[0-9]+[bkmgBKMG]?$", title="Shared memory size")
    """Size of ``/dev/shm`` in a container, for example ``8g``. Only for work pools whose base job template has a
    variable ``shm_size``; see ``deployments/production.md``."""

    custom_docker_image: str | None = Field(default=None, min_length=1, title="Docker image")
    """Image to train in, with Trainyard in it. Only for work pools whose base job template has a variable ``image``, as
    those of Docker and Kubernetes have."""

    @field_validator("script_params", mode="before")
    @classmethod
    def _refuse_null_values(cls, value: Any) -> Any:
        nulls = [key for key, item in value.items() if item is None] if isinstance(value, dict) else []
        if nulls:
            raise ValueError(f'{", ".join(map(repr, nulls))}: null is no value; use "" for a bare flag')
        return value

    @field_validator("script_params", "environment_variables")
    @classmethod
    def _refuse_nul(cls, value: dict[str, Any]) -> dict[str, Any]:
        broken = [name for name, item in value.items() if "\0" in name or (isinstance(item, str) and "\0" in item)]
        if broken:
            raise ValueError(f"{', '.join(map(repr, broken))}: no program can be given a NUL character")
        return value

    @field_validator("script_params", "environment_variables")
    @classmethod
    def _refuse_credentials_of_storage(cls, value: dict[str, Any]) -> dict[str, Any]:
        texts = {name: item.strip() for name, item in value.items() if isinstance(item, str)}
        found = [name for name, text in texts.items() if STORAGE_URL.fullmatch(text) and credentials_problem(text)]
        if found:
            raise ValueError(
                f"{', '.join(map(repr, found))}: a URL with credentials, which would be shown in the Prefect UI and "
                "kept with the run; give the data as a datastore: its credentials come from the environment, or a block"
            )
        return value

    @field_validator("source_directory")
    @classmethod
    def _refuse_unknown_user(cls, value: str) -> str:
        try:
            Path(value).expanduser()
        except RuntimeError:
            raise ValueError(f"{value!r}: this machine knows no such user") from None
        return value

    @field_validator("entry_script")
    @classmethod
    def _entry_script_is_inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{value!r} lies outside the source directory; give a path relative to it")
        return value

    @model_validator(mode="after")
    def _more_processes_need_a_backend(self) -> "PyTorch":
        if self.world_size > 1 and self.distributed_backend is None:
            raise ValueError(_needs_backend(self.node_count, self.process_count_per_node))
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _report_all_problems(cls, data: Any, handler: ModelWrapValidatorHandler["PyTorch"]) -> "PyTorch":
        """Where a value is refused anyway, say at once what else is wrong with the job."""
        try:
            return handler(data)
        except ValidationError as error:
            more = _problems_seen_in(data) if isinstance(data, dict) else []
            known = {str(line["loc"][0]) for line in error.errors() if line["loc"]}  # fields that are refused already
            known |= {str(line["msg"]) for line in error.errors() if not line["loc"]}
            lines = [_line(item["loc"], item["type"], item["msg"], item["input"]) for item in error.errors()]
            lines += [_line(loc, "value_error", msg, None) for loc, msg in more if not _is_said(msg, known)]
            raise ValidationError.from_exception_data(error.title, lines) from None

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.node_count * self.process_count_per_node

    @property
    def topology(self) -> str:
        """For people, for example ``1x2 mpi``."""
        backend = self.distributed_backend or "single process"
        return f"{self.node_count}x{self.process_count_per_node} {backend}" + (" gpu" if self.use_gpu else "")

    @property
    def references(self) -> tuple[DataReference, ...]:
        """Every data reference, each once, in the order of the parameters and then of the inputs."""
        values = [*self.script_params.values(), *self.inputs.values(), self.resume_from]
        found = [as_reference(value) for value in values if isinstance(value, (Datastore, DataReference))]
        return tuple(dict.fromkeys(found))

    def arguments(self, resolve: Callable[[DataReference], str]) -> tuple[str, ...]:
        """The script's argv.

        Args:
            resolve: Gives the text that stands for a data reference: a local path, an address, a digest.
        """
        argv: list[str] = []
        for name, value in self.script_params.items():
            argv.append(name)
            if isinstance(value, (Datastore, DataReference)):
                argv.append(resolve(as_reference(value)))
            elif value != "":
                argv.append(str(value))
        return tuple(argv)


def as_reference(value: Datastore | DataReference) -> DataReference:
    """A datastore stands for a reference to all of it."""
    return value if isinstance(value, DataReference) else DataReference(datastore=value)


def source_problems(source_directory: str, entry_script: str) -> list[str]:
    """What is wrong with a source directory and entry script on this machine, one sentence each."""
    try:
        source = Path(source_directory).expanduser()
    except RuntimeError:
        return [f"source_directory {source_directory!r}: this machine knows no such user"]
    if not source.is_dir():
        what = "is a file, not a directory" if source.exists() else "does not exist"
        return [f"source_directory {source_directory!r} {what} (looked in {Path.cwd()})"]
    script = source / entry_script
    if not script.resolve().is_relative_to(source.resolve()):
        return [f"entry_script {entry_script!r} lies outside the source directory {source_directory!r}"]
    if not script.is_file():
        scripts = ", ".join(sorted(path.name for path in source.glob("*.py"))) or "none"
        return [f"entry_script {entry_script!r} is not a file in {source_directory!r} (Python files there: {scripts})"]
    return []


def _needs_backend(node_count: int, process_count_per_node: int) -> str:
    return (
        f"node_count={node_count} and process_count_per_node={process_count_per_node} make "
        f'{node_count * process_count_per_node} processes, which need distributed_backend="mpi" (Horovod), '
        '"gloo" or "nccl" (torch.distributed)'
    )


def _problems_seen_in(data: dict[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """Problems that the field checks could not reach, in what was given to the constructor."""
    found: list[tuple[tuple[str, ...], str]] = []
    source, script = data.get("source_directory"), data.get("entry_script")
    if isinstance(source, str) and isinstance(script, str) and source and script:
        found += [(("source_directory",), problem) for problem in source_problems(source, script)]
    nodes, processes = data.get("node_count", 1), data.get("process_count_per_node", 1)
    counts_are_valid = isinstance(nodes, int) and isinstance(processes, int) and min(nodes, processes) > 0
    if counts_are_valid and nodes * processes > 1 and data.get("distributed_backend") is None:
        found.append((("distributed_backend",), _needs_backend(nodes, processes)))
    return found


def _is_said(message: str, known: set[str]) -> bool:
    return message.split(" ", 1)[0] in known or any(message in said for said in known)


def _line(location: tuple[int | str, ...], kind: str, message: str, value: Any) -> InitErrorDetails:
    shown = value if isinstance(value, (int, float)) else None  # a text may hold a URL with a password
    return InitErrorDetails(type=PydanticCustomError(kind, message), loc=location, input=shown)
