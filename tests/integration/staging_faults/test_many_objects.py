"""Everything that a network and a server can do to a staging of a thousand small objects.

Two promises are held, here and of large objects: never a wrong byte, and never a half-made directory that looks whole.
What a retry can mend is mended; what it cannot ends in an error that names the object.
"""

import pytest

from tests.integration.staging_faults.objects import (
    MENDED,
    NUM_OBJECTS,
    REFUSED,
    assert_nothing_looks_whole,
    assert_right,
    assert_right_without_faults,
    put_small_objects,
    reference,
)
from trainyard.tasks.errors import StorageAccessError, StorageUnavailableError, TransientError
from trainyard.tasks.staging.dataset import stage_references


@pytest.mark.parametrize("kind", MENDED)
def test_faults_that_pass_are_mended_within_one_staging(server, bucket_name, context, kind):
    put_small_objects(server, bucket_name)
    share = NUM_OBJECTS // 4 if kind == "stalled" else 40  # a stalled answer costs its time-out
    fault = server.add_fault(kind, lambda key, nth: nth == 1 and int(key[-9:-4]) % share == 0)
    product = stage_references([reference(server, bucket_name)], context)
    assert fault.num_strikes == -(-NUM_OBJECTS // share)
    assert_right(server, bucket_name, context, product)


@pytest.mark.parametrize("kind", [kind for kind in MENDED if kind != "range ignored"])
def test_a_fault_that_stays_is_an_error_that_names_the_object_and_staging_resumes(server, bucket_name, context, kind):
    put_small_objects(server, bucket_name, 300)
    victim = "train/07/00207.txt"
    server.add_fault(kind, lambda key, nth: key == victim)
    with pytest.raises(StorageUnavailableError, match=victim):
        stage_references([reference(server, bucket_name)], context)
    assert_nothing_looks_whole(context)
    staged_before = sum(1 for _ in (context.home / "objects").glob("??/*"))
    assert 0 < staged_before < 300, "objects are taken in their order, and a hundred come before the one that fails"
    server.faults.clear()
    server.reads.clear()
    product = stage_references([reference(server, bucket_name)], context)
    assert len(server.reads) == 300 - staged_before
    assert_right(server, bucket_name, context, product)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_midway_is_permanent_and_names_the_object(server, bucket_name, context, kind):
    put_small_objects(server, bucket_name)
    victim = "train/17/00317.txt"
    server.add_fault(kind, lambda key, nth: key == victim)
    with pytest.raises(StorageAccessError, match=f"{victim}.*{REFUSED[kind]}|{REFUSED[kind]}.*{victim}"):
        stage_references([reference(server, bucket_name)], context)
    assert_right_without_faults(server, bucket_name, context)


def test_a_storm_of_every_fault_ends_right_once_retried(server, bucket_name, context):
    """As the stage's policy does it: again after a transient error, from where the last attempt ended."""
    put_small_objects(server, bucket_name)
    faults = [
        server.add_fault(kind, lambda key, nth, n=n: nth <= 2 and int(key[-9:-4]) % 97 == n)
        for n, kind in enumerate(kind for kind in MENDED if kind != "stalled")
    ]
    faults.append(server.add_fault("overwritten", lambda key, nth: nth == 1 and int(key[-9:-4]) % 601 == 50))
    for _ in range(12):
        try:
            product = stage_references([reference(server, bucket_name)], context)
            break
        except TransientError:
            assert_nothing_looks_whole(context)
    assert [fault.kind for fault in faults if fault.num_strikes == 0] == []
    assert_right(server, bucket_name, context, product)
