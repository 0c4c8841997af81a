"""The world that the ranks form, and whether it is the one that was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass

from trainyard.tasks.runtime.ranks import Rank

WORLD_SIZE_VARIABLE = "TRAINYARD_WORLD_SIZE"
LOCAL_SIZE_VARIABLE = "TRAINYARD_LOCAL_SIZE"
NODE_COUNT_VARIABLE = "TRAINYARD_NODE_COUNT"

LAUNCHER, MPI_ITSELF = "the launcher says", "MPI says"
CAUSES = {
    LAUNCHER: "The variables by which launchers tell ranks their place must not be set by hand (environment_variables)",
    MPI_ITSELF: "mpi4py, Horovod and mpirun must use the same Open MPI (trainyard doctor tells)",
}


class WorldMismatchError(RuntimeError):
    """The ranks do not form the world that was asked for."""


@dataclass(frozen=True, slots=True)
class World:
    """A world, as somebody sees or wants it; None is what they do not say."""

    size: int
    """Number of ranks."""

    local_size: int | None
    """Ranks on this host."""

    num_nodes: int | None
    """Hosts."""

    @classmethod
    def asked_for(cls, environment: Mapping[str, str]) -> "World":
        """What the pipeline's variables say."""
        local_size, num_nodes = (_int(environment, name) for name in (LOCAL_SIZE_VARIABLE, NODE_COUNT_VARIABLE))
        return cls(int(environment[WORLD_SIZE_VARIABLE]), local_size, num_nodes)

    @classmethod
    def of_launcher(cls, rank: Rank, environment: Mapping[str, str]) -> "World":
        """What the launcher's variables say: Open MPI's, torchrun's, or those of a single process."""
        if rank.launched_by_mpi:
            return cls(rank.world_size, _int(environment, "OMPI_COMM_WORLD_LOCAL_SIZE"), None)
        if "RANK" in environment:
            return cls(rank.world_size, _int(environment, "LOCAL_WORLD_SIZE"), _int(environment, "GROUP_WORLD_SIZE"))
        return cls(rank.world_size, 1, 1)

    def differences(self, seen: "World") -> list[str]:
        """How the world that is seen differs from this one, which was asked for."""
        pairs = (
            ("ranks", self.size, seen.size),
            ("ranks on this host", self.local_size, seen.local_size),
            ("hosts", self.num_nodes, seen.num_nodes),
        )
        return [
            f"expected {expected} {what}, found {found}"
            for what, expected, found in pairs
            if None not in (expected, found) and expected != found
        ]


def check_world(rank: Rank, environment: Mapping[str, str]) -> None:
    """Check size and placement of the world on this rank; under Open MPI, start MPI for it.

    Raises:
        WorldMismatchError: They are not what was asked for; names everything that was expected and found.
    """
    expected = World.asked_for(environment)
    seen = World.of_launcher(rank, environment)
    _refuse(LAUNCHER, [*expected.differences(seen), *_place_problems(rank, seen)])
    if rank.launched_by_mpi:
        _check_mpi(rank, expected)


def _check_mpi(rank: Rank, expected: World) -> None:
    """What MPI itself sees: an mpi4py of another MPI starts, and finds itself alone."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    _refuse(MPI_ITSELF, expected.differences(World(world.size, None, None)))  # before anything waits for all ranks
    _refuse(MPI_ITSELF, [] if world.rank == rank.rank else [f"expected to be rank {rank.rank}, found {world.rank}"])
    host = world.Split_type(MPI.COMM_TYPE_SHARED)
    num_nodes = world.allreduce(1 if host.rank == 0 else 0)
    seen, local_rank = World(world.size, host.size, num_nodes), host.rank
    host.Free()
    wrong_place = (
        [] if local_rank == rank.local_rank else [f"expected local rank {rank.local_rank}, found {local_rank}"]
    )
    _refuse(MPI_ITSELF, [*expected.differences(seen), *wrong_place])


def _place_problems(rank: Rank, seen: World) -> list[str]:
    places = [("rank", rank.rank, seen.size), ("local rank", rank.local_rank, seen.local_size)]
    return [
        f"expected a {what} from 0 to {size - 1}, found {found}"
        for what, found, size in places
        if size is not None and not 0 <= found < size
    ]


def _refuse(who: str, problems: list[str]) -> None:
    if problems:
        raise WorldMismatchError(
            f"the ranks do not form the world that was asked for. {who}: {'; '.join(problems)}. {CAUSES[who]}"
        )


def _int(environment: Mapping[str, str], name: str) -> int | None:
    return int(environment[name]) if name in environment else None
