"""A pipeline on the small project, as its user would call it."""

import uuid
from contextlib import suppress

import psutil
import pytest

from tests.processes import marked
from trainyard import Datastore, OnnxExport, OrtValidation, PyTorch

STAGES = ["stage", "train", "metrics", "export", "validate", "register"]


def small_estimator(project, points, **changes):
    """The small project on its data, in one process."""
    values = {
        "source_directory": str(project),
        "entry_script": "train.py",
        "script_params": {"--data-dir": Datastore(url=str(points)), **changes.pop("script_params", {})},
        **changes,
    }
    return PyTorch(**values)


def pipeline_on(project, points):
    """Call the pipeline on the small project; keyword arguments change its parts."""
    from trainyard import training_pipeline

    def run(script_params=None, estimator=None, **parameters):
        changed = small_estimator(project, points, script_params=script_params or {}, **(estimator or {}))
        return training_pipeline(changed, **{"export": OnnxExport(), "validation": OrtValidation(), **parameters})

    return run


@pytest.fixture
def run_pipeline(prefect_server, home, linear_project, points):
    """The pipeline on a project, on data and in a home that are the test's own."""
    return pipeline_on(linear_project, points)


def statuses(result):
    """Stage to ``ran`` or ``cached``."""
    return {name: outcome.status for name, outcome in result.stages.items()}


def that_ran(result):
    """The stages that ran, in the pipeline's order."""
    return [name for name in STAGES if result.stages[name].status == "ran"]


@pytest.fixture
def mark():
    """In the environment of all that a test wants to find again; what is left of it is ended after the test."""
    mark = f"trainyard-orphans-{uuid.uuid4().hex}"
    yield mark
    for process in marked(mark):
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.fixture(scope="session")
def yard(tmp_path_factory, prefect_home):
    """A server and two workers, as ``trainyard up`` starts them; see ``tests/e2e/yard.py``."""
    from tests.e2e.yard import run_yard

    folder = tmp_path_factory.mktemp("yard")
    prefect_home(folder / "home" / "prefect")
    with run_yard(folder) as running:
        yield running


@pytest.fixture
def training(yard):
    """The processes of a training on the gpu worker, once both ranks train and have left a checkpoint."""
    before = set(yard.home.glob("checkpoints/*/last.pt"))

    def ranks():
        found = yard.ranks()
        return found if len(found) >= 2 and set(yard.home.glob("checkpoints/*/last.pt")) - before else None

    return ranks
