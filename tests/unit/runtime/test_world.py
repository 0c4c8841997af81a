import pytest

from trainyard.tasks.runtime.ranks import Rank
from trainyard.tasks.runtime.world import WorldMismatchError, check_world

ASKED = {"TRAINYARD_WORLD_SIZE": "4", "TRAINYARD_LOCAL_SIZE": "2", "TRAINYARD_NODE_COUNT": "2"}
TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"}


def check(environment):
    check_world(Rank.from_environment(environment), environment)


def test_the_world_that_was_asked_for():
    check(ASKED | TORCHRUN)
    check({"TRAINYARD_WORLD_SIZE": "1", "TRAINYARD_LOCAL_SIZE": "1", "TRAINYARD_NODE_COUNT": "1"})
    check({"TRAINYARD_WORLD_SIZE": "1"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"WORLD_SIZE": "5"}, "expected 4 ranks, found 5"),
        ({"LOCAL_WORLD_SIZE": "4"}, "expected 2 ranks on this host, found 4"),
        ({"GROUP_WORLD_SIZE": "1"}, "expected 2 hosts, found 1"),
        ({"RANK": "4"}, "expected a rank from 0 to 3, found 4"),
        ({"LOCAL_RANK": "2"}, "expected a local rank from 0 to 1, found 2"),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}, "expected 4 ranks, found 2; expected 2 ranks on this host"),
    ],
)
def test_another_world_is_refused(changes, words):
    with pytest.raises(WorldMismatchError, match=words):
        check(ASKED | TORCHRUN | changes)


def test_a_process_that_no_launcher_started_is_alone():
    with pytest.raises(WorldMismatchError, match="expected 4 ranks, found 1"):
        check(ASKED)


def test_the_launcher_is_refused_before_mpi_is_started():
    """Else an MPI that waits for ranks that never come would wait for ever."""
    started_by_mpi = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
    with pytest.raises(WorldMismatchError, match="the launcher says: expected 4 ranks, found 2"):
        check(ASKED | started_by_mpi)
