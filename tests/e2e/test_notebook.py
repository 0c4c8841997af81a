"""The example notebook, cell by cell, inside a running event loop as in Jupyter's kernel."""

import json
import subprocess
import sys

from tests.e2e.yard import ROOT

KERNEL = """
import ast, asyncio, json, sys

async def main():
    namespace = {}
    for source in json.loads(sys.stdin.read()):
        exec(compile(ast.parse(source), "<cell>", "exec"), namespace)
    return namespace

namespace = asyncio.run(main())
print(json.dumps({"metrics": namespace["run"].get_metrics(), "model": namespace["result"].model_uri}))
"""


def test_the_notebook_runs(yard, tmp_path):
    notebook = json.loads((ROOT / "examples" / "experiment.ipynb").read_text())
    assert not [cell for cell in notebook["cells"] if cell.get("outputs")], "committed without outputs"
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    data = tmp_path / "digits"
    subprocess.run([sys.executable, ROOT / "examples" / "prepare_digits.py", "--to", data], check=True)
    placed = [
        cell.replace('str(root / ".data" / "digits")', repr(str(data))).replace('"/tmp"', repr(str(tmp_path)))
        for cell in cells
    ]
    assert placed != cells
    own = {"TRAINYARD_HOME": str(tmp_path / "home"), "TRAINYARD_STORE": f"file://{tmp_path}/store"}
    env = yard.environment(PREFECT_API_URL=yard.api_url, **own)
    done = subprocess.run(
        [sys.executable, "-c", KERNEL],
        input=json.dumps(placed),
        env=env,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Training run" in done.stdout, "the log of the run, as it came"
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["metrics"]["accuracy"] > 0.8
    assert answer["model"] == f"file://{tmp_path}/store/models/digits/1"
    assert (tmp_path / "model.pt2").is_file()
