"""mpi4py: its version and the MPI library that it loads, without starting MPI."""

import json


def main() -> None:
    """Print them."""
    import mpi4py

    mpi4py.rc.initialize = False  # read when MPI is imported
    from mpi4py import MPI

    print(json.dumps({"version": mpi4py.__version__, "library": MPI.Get_library_version().split(",")[0]}))


if __name__ == "__main__":
    main()
