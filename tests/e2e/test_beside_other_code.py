"""Beside a project that has a ``flows`` package and a ``tasks.py`` of its own, everybody imports what is theirs."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TRAIN = """
import json, tasks, flows, flows.helper, trainyard.tasks.runtime.run, trainyard.flows
from trainyard import Run
run = Run.get_context()
run.log("theirs", tasks.ANSWER + flows.helper.ANSWER)
"""

CALLER = """
import json, sys
import flows.helper, tasks
from trainyard import training_pipeline, PyTorch
import trainyard.flows.training_pipeline, trainyard.tasks.errors
assert tasks.ANSWER == 40 and flows.helper.ANSWER == 2
result = training_pipeline(PyTorch(source_directory=".", entry_script="train.py"), export=None)
print(json.dumps(result.metrics))
"""


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    (folder / "flows").mkdir(parents=True)
    (folder / "flows" / "__init__.py").write_text("")
    (folder / "flows" / "helper.py").write_text("ANSWER = 2\n")
    (folder / "tasks.py").write_text("ANSWER = 40\n")
    (folder / "train.py").write_text(TRAIN)
    (folder / "call.py").write_text(CALLER)
    return folder


def test_ours_and_theirs_import_right_in_the_flow_and_in_training(prefect_server, home, project):
    env = {**os.environ, "PREFECT_API_URL": prefect_server, "TRAINYARD_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "call.py"], cwd=project, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"theirs": 42.0}


def test_a_wheel_holds_trainyard_alone(tmp_path):
    copy = shutil.copytree(ROOT, tmp_path / "copy", symlinks=True, ignore=shutil.ignore_patterns(".*", "build"))
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(copy)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"trainyard"}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tasks").rglob("*.py")}
    assert sources <= {name.removeprefix("trainyard/") for name in names}
    assert "trainyard/deployments/environment/requirements.lock" in names
    assert {"trainyard/deployments/prefect.yaml", "trainyard/deployments/resources.yaml"} <= set(names)
