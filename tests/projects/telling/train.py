"""Writes down what each rank was given: arguments, environment, files."""

import json
import os
import sys
from pathlib import Path

rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
if "OMPI_COMM_WORLD_RANK" in os.environ:
    from mpi4py import MPI

    MPI.COMM_WORLD.Barrier()
environment = {name: value for name, value in os.environ.items() if name.startswith(("HOSTILE_", "DATA"))}
data = Path(os.environ["DATA"]) if "DATA" in os.environ else None
told = {
    "script": sys.argv[0],
    "arguments": sys.argv[1:],
    "environment": environment,
    "data": sorted(path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()) if data else [],
}
Path(f"outputs/told-{rank}.json").write_text(json.dumps(told))
