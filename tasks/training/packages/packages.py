"""A job's packages, from the request to what its processes are started with."""

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainyard.tasks.artifacts.digests import digest_value
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.specs.estimator import PyTorch
from trainyard.tasks.training.packages.conda import (
    CondaEnvironment,
    CondaRequest,
    build_conda,
    read_conda,
    tool_problems,
)
from trainyard.tasks.training.packages.installed import conflicts, installed_packages
from trainyard.tasks.training.packages.layer import Layer, build_layer
from trainyard.tasks.training.packages.lock import PackageLock, lock_components, lock_packages
from trainyard.tasks.training.packages.requirements import Requirements, read_requirements


@dataclass(frozen=True, slots=True)
class Asked:
    """What a job asks for.

    Args:
        pip: Of pip.
        conda: Of conda.
    """

    pip: Requirements
    conda: CondaRequest

    @property
    def problems(self) -> list[str]:
        """What can be known to be wrong with it on this machine, without an index; one sentence each."""
        found = [*self.pip.problems, *self.conda.problems]
        found += [*conflicts(self.pip, installed_packages()), *tool_problems(self.conda)]
        return found + self._missing_pip()

    def _missing_pip(self) -> list[str]:
        if not self.pip.wanted or "pip" in installed_packages():
            return []
        return [f"packages are asked for, and {sys.executable} has no pip: {sys.executable} -m ensurepip"]


@dataclass(frozen=True, slots=True)
class Packages:
    """A job's packages, ready to be used.

    Args:
        layer: The environment layer; None where what is installed is all that is needed.
        conda: The conda environment, where there is one.
    """

    layer: Layer | None = None
    conda: CondaEnvironment | None = None

    @property
    def python(self) -> Path:
        """The interpreter for the script."""
        return self.layer.python if self.layer is not None else Path(sys.executable)

    @property
    def site_packages(self) -> Path | None:
        """The folder of the Python packages that are not installed otherwise."""
        return self.layer.site_packages if self.layer is not None else None

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of processes that use them, from what they would get otherwise."""
        found = dict(inherited)
        if self.layer is not None:
            found |= self.layer.environment(found, Path(sys.prefix))
        if self.conda is not None:
            found |= self.conda.environment(found)
        return found


NO_PACKAGES = Packages()


def read_asked(estimator: PyTorch) -> Asked:
    """Read what a job asks for."""
    source = Path(estimator.source_directory).expanduser()
    pip = read_requirements(source, estimator.pip_packages, estimator.pip_requirements_file)
    conda = read_conda(
        source,
        estimator.conda_packages,
        estimator.conda_dependencies_file,
        pip,
        installed_packages(),
        platform.python_version(),
    )
    return Asked(pip, conda)


def package_components(asked: Asked, lock: PackageLock) -> dict[str, str]:
    """What of a job's packages decides a training's result, for its key.

    Conda's are known by what was asked for: no conda tool says without a network what that comes to.
    """
    if not asked.conda.specs:
        return lock_components(lock)
    request = {"channels": asked.conda.channels, "specs": sorted(asked.conda.specs)}
    return {**lock_components(lock), "config:conda": digest_value(request)}


def resolve(asked: Asked, context: StageContext, *, anew: bool) -> PackageLock:
    """The exact Python packages that a request comes to; see ``lock_packages``."""
    return lock_packages(asked.pip, context, anew=anew)


def prepare(asked: Asked, lock: PackageLock, context: StageContext) -> Packages:
    """Build what is not there yet; raises as ``build_layer`` and ``build_conda`` do."""
    conda = build_conda(asked.conda, context.home, platform.python_version(), context.timeout_s)
    beside = [str(conda.site_packages)] if conda is not None and conda.site_packages is not None else []
    if not lock.packages and not beside:
        return Packages(conda=conda)
    return Packages(build_layer(lock, asked.pip.options, context.home, context.timeout_s, beside), conda)
