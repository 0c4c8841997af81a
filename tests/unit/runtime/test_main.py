"""A rank's surroundings, in a process of its own."""

import os
import subprocess
import sys


def test_a_script_finds_modules_on_a_relative_pythonpath_and_beside_itself(tmp_path):
    project, ranks = tmp_path / "project", tmp_path / "ranks"
    for folder in (project / "src", project / "lib", ranks):
        folder.mkdir(parents=True)
    (project / "lib" / "__init__.py").write_text("")
    (project / "src" / "beside.py").write_text("")
    (project / "shadow.py").write_text("")
    (project / "src" / "train.py").write_text("import sys, beside, lib\nopen('path', 'w').write(repr(sys.path[0]))\n")
    env = {
        **os.environ,
        "PYTHONPATH": ".",
        "PYTHONSAFEPATH": "1",
        "TRAINYARD_RANKS_DIR": str(ranks),
        "TRAINYARD_WORLD_SIZE": "1",
        "TRAINYARD_METRICS_DIR": str(tmp_path / "records"),
    }
    command = [sys.executable, "-m", "trainyard.tasks.runtime", "./src/train.py"]
    done = subprocess.run(command, cwd=project, env=env, check=False)
    assert done.returncode == 0, (ranks / "rank-00000.log").read_text()
    assert (project / "path").read_text() == repr(str(project / "src"))
