"""What the controller is told: everything but the values of environment variables, which may be secret."""

from trainyard.tasks.specs.spec import Spec
from trainyard.tasks.training.hosts.plan import HostsPlan


class HostsJob(Spec):
    """A training over several hosts."""

    plan: HostsPlan
    """Where."""

    node_count: int
    """The first so many hosts are used."""

    process_count_per_node: int
    """Ranks on each."""

    use_gpu: bool
    """Whether the ranks compute on GPUs."""

    rank_command: tuple[str, ...]
    """What one rank runs, after the interpreter and its options."""
