"""Readings of /proc are not of one moment. The numbers are process ids; 10 is the supervisor."""

import os

from trainyard.tasks.runtime import supervisor


def read(monkeypatch, *readings):
    following = iter(readings)
    monkeypatch.setattr(supervisor, "_read_processes", lambda: next(following))


def test_a_reading_during_which_a_parent_ended_is_repeated(monkeypatch):
    """30 was the child of 20, which was gone when its turn came; 10 has adopted it."""
    read(monkeypatch, ({1: 0, 10: 1, 30: 20}, set()), ({1: 0, 10: 1, 30: 10}, set()))
    assert supervisor.descendants(10) == [30]


def test_a_parent_that_ended_but_was_not_yet_buried_still_leads_to_its_children(monkeypatch):
    read(monkeypatch, ({1: 0, 10: 1, 20: 10, 30: 20}, {20}))
    assert supervisor.descendants(10) == [30]


def test_parents_that_cannot_be_seen_do_not_keep_it_for_ever(monkeypatch):
    monkeypatch.setattr(supervisor, "_read_processes", lambda: ({10: 7, 30: 10}, set()))
    assert supervisor.descendants(10) == [30]


def test_the_processes_of_this_machine_are_read():
    parents, zombies = supervisor._read_processes()
    assert parents[os.getpid()] == os.getppid()
    assert os.getpid() not in zombies
