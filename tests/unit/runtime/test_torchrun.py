import pytest

from trainyard.tasks.runtime.torchrun import exit_status


@pytest.mark.parametrize(("exit_code", "status"), [(3, 3), (1, 1), (-9, 137), (-11, 139)])
def test_the_exit_status_is_that_of_the_rank(exit_code, status):
    assert exit_status(exit_code) == status
