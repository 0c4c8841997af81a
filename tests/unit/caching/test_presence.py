import logging

import pytest

from tests.processes import wait_for
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.caching.presence import PresenceWatch, presence
from trainyard.tasks.errors import StorageUnavailableError


@pytest.fixture
def location(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINYARD_LEASE_TTL_S", "30")
    return Location(f"file://{tmp_path}") / "answers/1/waiting.json"


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def test_the_file_is_there_while_the_block_runs(location):
    with presence(location):
        assert location.exists()
    assert not location.exists()


def test_it_changes_for_as_long_as_somebody_waits(location, monkeypatch):
    monkeypatch.setenv("TRAINYARD_LEASE_TTL_S", "1")
    with presence(location):
        first = location.read_bytes()
        watch = PresenceWatch(location)
        assert wait_for(lambda: not watch.is_lost() and location.read_bytes() != first, 30)


def test_one_that_does_not_change_for_its_time_to_live_is_lost(location, clock):
    with presence(location):
        watch = PresenceWatch(location, clock)
        assert not watch.is_lost()
        clock.now_s += 29
        assert not watch.is_lost()
        clock.now_s += 2
        assert watch.is_lost()


def test_the_time_to_live_is_the_one_of_who_waits(location, clock, monkeypatch):
    with presence(location):
        monkeypatch.setenv("TRAINYARD_LEASE_TTL_S", "3600")
        watch = PresenceWatch(location, clock)
        assert not watch.is_lost()
        clock.now_s += 31
        assert watch.is_lost()


def test_one_that_is_gone_is_lost_but_not_at_once(location, clock):
    with presence(location):
        watch = PresenceWatch(location, clock)
        watch.is_lost()
    clock.now_s += 29
    assert not watch.is_lost()
    clock.now_s += 2
    assert watch.is_lost()


def test_a_store_that_does_not_answer_says_nothing(location, clock, monkeypatch, caplog):
    watch = PresenceWatch(location, clock)
    clock.now_s += 29

    def refuse(self):
        raise StorageUnavailableError("the store is away")

    with monkeypatch.context() as away:
        away.setattr(Location, "read_bytes", refuse)
        clock.now_s += 100
        with caplog.at_level(logging.WARNING):
            assert not watch.is_lost()
        assert "the store is away" in caplog.text
    clock.now_s += 29
    assert not watch.is_lost(), "the time begins anew"
    clock.now_s += 2
    assert watch.is_lost()
