import json

import pytest

from trainyard.tasks.runtime.torchrun import exit_status, report_silent_deaths


def reports(directory):
    return {int(path.name[5:10]): json.loads(path.read_text()) for path in directory.glob("rank-*.failure.json")}


@pytest.mark.parametrize(("exit_code", "status"), [(3, 3), (1, 1), (-9, 137), (-11, 139)])
def test_the_exit_status_is_that_of_the_rank(exit_code, status):
    assert exit_status(exit_code) == status


def test_ranks_that_died_without_a_word_are_reported(tmp_path):
    (tmp_path / "rank-00002.failure.json").write_text('{"message": "my own"}')
    report_silent_deaths({1: -11, 0: 7, 2: 1, 3: -15, 4: -6}, tmp_path)
    found = reports(tmp_path)
    assert {rank: found[rank].get("error_type") for rank in sorted(found)} == {
        0: "ExitWithoutAWord",
        1: "SIGSEGV",
        2: None,
        4: "SIGABRT",
    }
    assert found[2] == {"message": "my own"}
    assert found[0]["exit_code"] == 7 and "exit status 7" in found[0]["message"]
    assert [rank for rank in (0, 1, 4) if found[rank]["silent"]] == [0, 1]


def test_a_rank_that_was_terminated_from_outside_is_reported(tmp_path):
    """Only after another failure is SIGTERM torchrun's own."""
    report_silent_deaths({1: -15}, tmp_path)
    assert reports(tmp_path)[1]["error_type"] == "SIGTERM"
