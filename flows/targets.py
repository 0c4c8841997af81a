"""Compute targets that are Prefect blocks, as values."""

from trainyard.tasks.specs.estimator import PyTorch
from trainyard.tasks.specs.hosts import Hosts, hosts_block


def with_loaded_target(estimator: PyTorch) -> PyTorch:
    """The estimator, with the hosts of the block that its compute target names (``hosts/NAME``).

    Raises:
        InvalidInputError: There is no such block.
        PrefectUnavailableError: The Prefect server does not answer.
    """
    target = estimator.compute_target
    block = hosts_block(target) if isinstance(target, str) else None
    return estimator if block is None else estimator.model_copy(update={"compute_target": Hosts.load(block)})
