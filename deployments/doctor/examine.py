"""All the questions, in the order in which one answer explains the next."""

from collections.abc import Callable, Iterator, Sequence

from trainyard.deployments.doctor.allreduce import check_allreduce
from trainyard.deployments.doctor.check import Check
from trainyard.deployments.doctor.horovod import check_horovod
from trainyard.deployments.doctor.interpreter import check_compiler, check_python
from trainyard.deployments.doctor.libraries import check_gpu, check_onnxruntime, check_torch
from trainyard.deployments.doctor.mpi import check_mpi4py, check_mpirun
from trainyard.deployments.doctor.probing import ask
from trainyard.deployments.doctor.services import check_datastore, check_prefect, check_store


def check_machine(
    datastores: Sequence[str] = (),
    *,
    probe: Callable[[str], None] | None = None,
    store: tuple[str, Callable[[str], bool]] | None = None,
    quick: bool = False,
) -> Iterator[Check]:
    """Look at everything that training needs here, one answer at a time.

    Libraries with native code are imported in processes of their own, so that a crash is an answer.

    Args:
        datastores: URLs of the datastores that must be reachable.
        probe: Reaches for a datastore, and raises a ``PipelineError`` or ``OSError`` where it cannot be reached.
        store: URL of an artifact store that several machines can reach, and what tries its conditional writes.
        quick: Leave out the all-reduce over two processes, which takes some seconds.

    Raises:
        ValueError: Datastores are given without a probe.
    """
    if datastores and probe is None:
        raise ValueError("datastores are given, and no probe to reach them with")
    torch = ask("torch_probe")
    yield check_python()
    yield check_compiler()
    yield check_torch(torch)
    yield check_gpu(torch)
    yield check_mpirun()
    yield check_mpi4py(ask("mpi4py_probe"))
    yield from check_horovod(torch, ask("horovod_probe"))
    yield Check("all-reduce", "skip", "left out (quick)") if quick else check_allreduce()
    yield check_onnxruntime(ask("onnxruntime_probe"))
    yield check_prefect(ask("prefect_probe"))
    if probe is not None:
        yield from (check_datastore(url, probe) for url in datastores)
    if store is not None:
        yield check_store(*store)
