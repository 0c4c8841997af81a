"""Build Horovod against the torch of an environment, once, and install it there."""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from trainyard.deployments.environment.commands import CommandLog
from trainyard.deployments.environment.inspection import Environment, inspect_environment
from trainyard.deployments.environment.locks import exclusive
from trainyard.deployments.environment.pip import explain_failure, pip_environment, run_pip
from trainyard.deployments.environment.prerequisites import missing_prerequisites
from trainyard.deployments.environment.problems import SetupError
from trainyard.deployments.environment.recipe import (
    HOROVOD_VERSION,
    REQUIREMENT,
    Recipe,
    build_environment,
    count_jobs,
    plan_recipe,
)

# CMake says what is wrong on the line after the one that says where.
_FIRST_ERROR = re.compile(r"^\s*(CMake Error .*\n.*|.*(?:error: |Killed signal ).*)$", re.MULTILINE)


def install_horovod(
    python: Path | None = None,
    *,
    tell: Callable[[str], None] = print,
    log: CommandLog | None = None,
    cache: Path | None = None,
) -> Path:
    """Install Horovod, built against the torch that is installed beside it.

    A wheel that was built before for the same recipe is used again. Where it does not import, it is built anew.

    Args:
        python: Interpreter of the environment; this process's own by default.
        tell: Called with a line for each thing that is about to happen.
        log: Takes the output of pip and of the build; a file beside the wheel by default.
        cache: Folder of the built wheels; ``default_wheel_cache()`` by default.

    Returns:
        The wheel that was installed.

    Raises:
        SetupError: Something that the build needs is missing, or it failed.
    """
    environment = inspect_environment(python or Path(sys.executable))
    recipe = plan_recipe(environment)
    folder = (cache or default_wheel_cache()) / recipe.key
    log = log or CommandLog(folder / "build.log")
    with exclusive(folder / "lock", on_wait=lambda: tell("waiting for another build of the same wheel")):
        wheel = next(folder.glob("*.whl"), None)
        if wheel is not None:
            tell(f"installing Horovod {HOROVOD_VERSION}, built before for torch {recipe.torch}")
            if _can_install(wheel, environment, log):
                return wheel
            wheel.unlink()
        wheel = _build(recipe, environment, folder, log, tell)
        _install(wheel, environment, log)
    return wheel


def default_wheel_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """``$XDG_CACHE_HOME/trainyard/wheels``, in ``~/.cache`` where the variable is not set."""
    cache = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "trainyard", "wheels")


def _build(
    recipe: Recipe, environment: Environment, folder: Path, log: CommandLog, tell: Callable[[str], None]
) -> Path:
    if problems := missing_prerequisites():
        raise SetupError("; ".join(problems))
    num_jobs = count_jobs()
    tell(
        f"building Horovod {HOROVOD_VERSION} for torch {recipe.torch} on {num_jobs} cores, some minutes "
        f"({recipe.gpu.reason})"
    )
    for left_behind in folder.glob("build-*"):  # by a build that was killed; the folder's lock is ours
        shutil.rmtree(left_behind)
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as name:
        scratch = Path(name)
        nccl_lib = _nccl_lib(recipe, scratch)
        env = build_environment(recipe, environment, num_jobs=num_jobs, nccl_lib=nccl_lib, base=os.environ)
        outcome = log.run(wheel_command(environment.python, scratch), pip_environment(env))
        if outcome.exit_code != 0:
            raise SetupError(explain_build_failure(outcome.exit_code, outcome.output, log.path))
        built = next(scratch.glob("*.whl"))
        return built.replace(folder / built.name)


def wheel_command(python: Path, destination: Path) -> list[str | Path]:
    """Arguments that build the wheel with what is installed, from the one source distribution that is known.

    ``--no-cache-dir`` because pip's own cache knows a wheel by its source alone, not by the torch it was built for.
    """
    options = [
        "--no-deps",
        "--no-build-isolation",
        "--use-pep517",
        "--no-cache-dir",
        "--no-binary=horovod",
        "--verbose",
    ]
    return [python, "-m", "pip", "wheel", *options, "--wheel-dir", destination, "--requirement", REQUIREMENT]


def explain_build_failure(exit_code: int, output: str, log_path: Path) -> str:
    """One message from the build's output: the first error of the compiler or CMake, or what pip says."""
    error = _FIRST_ERROR.search(output)
    if error is None or "Building wheel for horovod" not in output:
        return explain_failure(exit_code, output, log_path)
    words = " ".join(error.group(1).split())
    return f"Horovod {HOROVOD_VERSION} could not be built: {words}; the whole output is in {log_path}"


def _nccl_lib(recipe: Recipe, scratch: Path) -> Path | None:
    """A folder with ``libnccl.so``: NCCL's package on PyPI holds ``libnccl.so.2`` only, which linkers pass over."""
    home = recipe.gpu.nccl_home
    if recipe.gpu.toolkit is None or home is None or (home / "lib" / "libnccl.so").exists():
        return None
    folder = scratch / "nccl"
    folder.mkdir()
    (folder / "libnccl.so").symlink_to(home / "lib" / "libnccl.so.2")
    return folder


def _install(wheel: Path, environment: Environment, log: CommandLog) -> None:
    run_pip(environment.python, ["install", "--no-index", "--no-deps", "--force-reinstall", str(wheel)], log)
    outcome = log.run([environment.python, "-c", "import horovod.torch"])
    if outcome.exit_code != 0:
        last_line = (outcome.output.strip() or f"exit code {outcome.exit_code}").splitlines()[-1]
        raise SetupError(f"Horovod was built, but cannot be imported: {last_line}; all output is in {log.path}")


def _can_install(wheel: Path, environment: Environment, log: CommandLog) -> bool:
    try:
        _install(wheel, environment, log)
    except SetupError:
        return False
    return True
