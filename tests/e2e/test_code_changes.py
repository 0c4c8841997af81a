"""A change of a helper inside a stage's package runs exactly that stage again, and what its product changes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import small_estimator

ROOT = Path(__file__).resolve().parents[2]

# Runs the pipeline once, then once more after each helper has got another line.
CALLER = """
import json, sys
from pathlib import Path
import trainyard
from trainyard import PyTorch, training_pipeline

package = Path(trainyard.__file__).parent
assert package == Path(sys.argv[2]), package

def that_ran():
    result = training_pipeline(PyTorch.model_validate_json(sys.argv[1]))
    return [name for name, outcome in result.stages.items() if outcome.status == "ran"]

answers = {"": that_ran()}
for helper in sys.argv[3:]:
    with (package / helper).open("a") as source:
        source.write("# changed\\n")
    answers[helper] = that_ran()
answers["again"] = that_ran()
print(json.dumps(answers))
"""

HELPERS = {
    "tasks/staging/listing.py": ["stage"],  # the same bytes are staged, so nothing after it changes
    "tasks/training/snapshot.py": ["train", "metrics"],  # the same model, but new times in its records
    "tasks/runtime/run.py": ["train", "metrics"],
    "tasks/metrics/report.py": ["metrics"],
    "tasks/export/exporter.py": ["export"],  # the same bytes are exported
    "tasks/validation/parity.py": ["validate"],
    "tasks/registry/manifest.py": ["register"],
    "tasks/retries.py": [],  # decides when a stage runs, not what it makes
}


@pytest.fixture
def package(tmp_path):
    """A copy of the package, without the links, to be changed at will."""
    return Path(shutil.copytree(ROOT / "trainyard", tmp_path / "code" / "trainyard"))


def test_a_helper_that_changes_reruns_exactly_its_stage(prefect_server, home, linear_project, points, package):
    estimator = small_estimator(linear_project, points).model_dump_json()
    env = {
        **os.environ,
        "PREFECT_API_URL": prefect_server,
        "TRAINYARD_HOME": str(home),
        "PYTHONPATH": str(package.parent),
    }
    command = [sys.executable, "-c", CALLER, estimator, str(package), *HELPERS]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, cwd=package.parent)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert answers.pop("") == ["stage", "train", "metrics", "export", "validate", "register"]
    assert answers.pop("again") == []
    assert answers == HELPERS
