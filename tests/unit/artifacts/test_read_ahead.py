import subprocess
import sys
import threading
import time

import pytest

from trainyard.tasks.artifacts import read_ahead as module
from trainyard.tasks.artifacts.read_ahead import NUM_AHEAD, NUM_TAKEN_AHEAD, TOTAL_AHEAD, read_ahead, take_ahead


def free_slots():
    return module._free_slots._value


def test_blocks_come_in_their_order_whatever_is_read_first():
    def read(start):
        time.sleep(0.02 if start % 3 == 0 else 0)
        return bytes([start])

    assert b"".join(read_ahead(range(40), read)) == bytes(range(40))
    assert free_slots() == TOTAL_AHEAD


def test_no_more_is_read_ahead_than_there_are_slots():
    lock, under_way, most = threading.Lock(), 0, 0

    def read(start):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.005)
        with lock:
            under_way -= 1
        return b"x"

    threads = [threading.Thread(target=lambda: list(read_ahead(range(20), read))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 8 + TOTAL_AHEAD
    assert free_slots() == TOTAL_AHEAD


def test_an_error_is_raised_in_its_place_and_gives_the_slots_back():
    def read(start):
        if start == 5:
            raise OSError("lost")
        return bytes([start])

    given = []
    with pytest.raises(OSError, match="lost"):
        given.extend(read_ahead(range(20), read))
    blocks, seen = read_ahead(range(20), read), []
    with pytest.raises(OSError, match="lost"):
        for block in blocks:
            seen.append(block)
    assert seen == [bytes([n]) for n in range(5)]
    assert free_slots() == TOTAL_AHEAD


def test_a_reader_that_stops_early_gives_the_slots_back():
    blocks = read_ahead(range(100), lambda start: bytes([start]))
    assert [next(blocks) for _ in range(NUM_AHEAD)] == [bytes([n]) for n in range(NUM_AHEAD)]
    blocks.close()
    assert free_slots() == TOTAL_AHEAD


def test_what_is_taken_ahead_comes_in_its_order():
    assert list(take_ahead((bytes([n]) for n in range(40)), 3)) == [bytes([n]) for n in range(40)]
    assert list(take_ahead([], 3)) == []


def test_no_more_is_taken_ahead_than_may_wait():
    taken = []

    def blocks():
        for n in range(20):
            taken.append(n)
            yield bytes([n])

    for given, _ in enumerate(take_ahead(blocks(), 3), start=1):
        deadline = time.monotonic() + 10
        while len(taken) < min(given + 3, 20) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.005)  # for one too many
        assert len(taken) == min(given + 3, 20)


def test_an_error_ahead_is_raised_in_its_place():
    def blocks():
        yield b"one"
        yield b"two"
        raise OSError("lost")

    given = []
    with pytest.raises(OSError, match="lost"):
        given.extend(take_ahead(blocks(), 3))
    seen = []
    with pytest.raises(OSError, match="lost"):
        for block in take_ahead(blocks(), 3):
            seen.append(block)
    assert seen == [b"one", b"two"]


def test_of_many_streams_some_are_taken_ahead_and_all_come_whole():
    before = threading.active_count()
    streams = [take_ahead(iter([b"one", b"two", b"three"]), 3) for _ in range(NUM_TAKEN_AHEAD + 3)]
    assert [next(stream) for stream in streams] == [b"one"] * len(streams)
    assert threading.active_count() - before <= NUM_TAKEN_AHEAD
    assert module._free_takers._value == 0
    assert [list(stream) for stream in streams] == [[b"two", b"three"]] * len(streams)
    assert module._free_takers._value == NUM_TAKEN_AHEAD


@pytest.mark.parametrize("is_endless", [True, False])
def test_who_stops_early_leaves_no_thread(is_endless):
    before = set(threading.enumerate())
    blocks = take_ahead(iter(lambda: b"x", None) if is_endless else iter([b"x"] * 3), 2)
    assert next(blocks) == b"x"
    blocks.close()
    assert set(threading.enumerate()) <= before
    assert module._free_takers._value == NUM_TAKEN_AHEAD


KEPT = """
from trainyard.tasks.artifacts.read_ahead import take_ahead
blocks = take_ahead(iter(lambda: b"x", None), 2)
next(blocks)
import builtins
builtins.kept = blocks
"""


def test_python_ends_while_blocks_wait_to_be_taken():
    subprocess.run([sys.executable, "-c", KEPT], check=True, timeout=60)
