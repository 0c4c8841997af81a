import gc
from contextlib import ExitStack, contextmanager

import pytest

from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_listings, verify_staged
from trainyard.tasks.staging.garbage import rarely_collected
from trainyard.tasks.staging.listing import list_reference

OFTEN = (700, 10, 10)


@pytest.fixture(autouse=True)
def _thresholds():
    before = gc.get_threshold()
    gc.set_threshold(*OFTEN)
    yield
    gc.set_threshold(*before)


@contextmanager
def counted_collections():
    """One entry for each time that the collector ran in the block."""
    phases = []

    def note(phase, _):
        if phase == "start":
            phases.append(phase)

    gc.callbacks.append(note)
    try:
        yield phases
    finally:
        gc.callbacks.remove(note)


def make_values():
    return [[n] for n in range(20_000)]


def test_the_collector_runs_rarely_in_the_block_and_as_before_after_it():
    with counted_collections() as before:
        make_values()
    with rarely_collected(), counted_collections() as within:
        make_values()
    with counted_collections() as after:
        make_values()
    assert len(within) < len(before) / 10
    assert len(after) >= len(before) - 2


def test_what_is_in_cycles_is_freed_within_the_block_too():
    with rarely_collected(), counted_collections() as within:
        for _ in range(300_000):
            cycle = []
            cycle.append(cycle)
    assert within


def test_an_error_in_the_block_brings_back_what_was():
    with pytest.raises(ValueError, match="broken"), rarely_collected():
        raise ValueError("broken")
    assert gc.get_threshold() == OFTEN


def test_the_last_of_several_blocks_brings_back_what_was():
    with ExitStack() as first, ExitStack() as last:  # as two threads would, in no order
        first.enter_context(rarely_collected())
        last.enter_context(rarely_collected())
        first.close()
        assert gc.get_threshold() != OFTEN
        last.close()
        assert gc.get_threshold() == OFTEN


@pytest.mark.parametrize("chosen", [(0, 10, 10), (1_000_000, 5, 5)], ids=["never", "more rarely"])
def test_a_process_that_collects_more_rarely_stays_as_it_is(chosen):
    gc.set_threshold(*chosen)
    with rarely_collected():
        assert gc.get_threshold() == chosen
    assert gc.get_threshold() == chosen


def test_listing_staging_and_verifying_thousands_of_objects_is_rarely_collected(context, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for n in range(2_000):
        (data / f"{n}.bin").write_bytes(b"%d" % n)
    reference = Datastore(url=str(data)).as_mount()
    with counted_collections() as listing:
        listed = list_reference(reference)
    stage_listings([listed], context)
    with counted_collections() as staging:
        staged = stage_listings([listed], context)
    with counted_collections() as verifying:
        verify_staged(staged, context)
    assert max(len(phases) for phases in (listing, staging, verifying)) <= 1  # as it ends
