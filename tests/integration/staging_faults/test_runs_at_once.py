"""Threads and processes that stage the same at once fetch each object once."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.integration.staging_faults.objects import assert_right, put_small_objects, reference
from trainyard.tasks.staging.dataset import stage_references


def test_runs_whose_references_overlap_fetch_each_object_once(server, bucket_name, context):
    put_small_objects(server, bucket_name, 200)
    server.put(bucket_name, {"other/object.txt": b"other"})
    shared, other = reference(server, bucket_name), reference(server, bucket_name, "other")
    both = threading.Barrier(2)

    def stage(references):
        both.wait(60)
        return stage_references(references, context)

    with ThreadPoolExecutor(2) as runs:
        one, two = runs.map(stage, ([shared], [shared, other]))
    assert one.datasets == two.datasets[:1]
    assert sorted(server.reads) == sorted(server.buckets[bucket_name])


def _stage_with_others(references, context, all_there):
    all_there.wait(120)
    stage_references(references, context)


def test_processes_that_stage_the_same_at_once_fetch_each_object_once(server, bucket_name, context):
    put_small_objects(server, bucket_name, 200)
    spawn = multiprocessing.get_context("spawn")
    all_there = spawn.Barrier(2)
    arguments = ([reference(server, bucket_name)], context, all_there)
    children = [spawn.Process(target=_stage_with_others, args=arguments) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(180)
    assert [child.exitcode for child in children] == [0, 0]
    assert sorted(server.reads) == sorted(server.buckets[bucket_name])
    assert_right(server, bucket_name, context, stage_references([reference(server, bucket_name)], context))
