"""mpi4py: its version and the MPI library that it loads, without starting MPI."""

import json

import mpi4py


def library_version() -> str:
    """What the library calls itself, for example ``Open MPI v5.0.11``."""
    mpi4py.rc.initialize = False  # read when MPI is imported
    from mpi4py import MPI

    return MPI.Get_library_version().split(",")[0]


print(json.dumps({"version": mpi4py.__version__, "library": library_version()}))
