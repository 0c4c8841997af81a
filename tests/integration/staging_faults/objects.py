"""What is put on the server, and what must hold of what was staged."""

import os

from trainyard.tasks.artifacts.datasets import dataset_path
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references

# Of one test; the two transports and all faults together read tens of thousands. More where time allows.
NUM_OBJECTS = 5_000 if os.environ.get("SLOW_TESTS") else 1_000
MENDED = ("truncated", "shortened", "short chunk", "reset", "stalled", "500", "503", "range ignored")
REFUSED = {"403": "refused", "skew": "clock"}
RANGE_STATUSES = (206, 200)


def content(n):
    return (f"object {n}\n" * (n % 50 + 1)).encode()


def put_small_objects(server, bucket, num_objects=NUM_OBJECTS):
    server.put(bucket, {f"train/{n % 20:02}/{n:05}.txt": content(n) for n in range(num_objects)})


def reference(server, bucket, key="train"):
    return Datastore(url=f"s3://{bucket}", endpoint_url=server.endpoint_url).path(key)


def assert_right(server, bucket, context, product, prefix="train/"):
    """Every byte of the dataset is that of the server, and there is nothing beside it."""
    [dataset] = product.datasets
    root = dataset_path(context.home, dataset)
    staged = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    objects = {key.removeprefix(prefix): value for key, value in server.buckets[bucket].items()}
    assert staged.keys() == objects.keys()
    for name, path in staged.items():
        assert path.read_bytes() == objects[name].read(0, objects[name].num_bytes), name


def assert_nothing_looks_whole(context):
    assert not (context.home / "datasets").exists() or list((context.home / "datasets").iterdir()) == []
    assert list((context.home / "objects" / "partial").iterdir()) == []


def assert_right_without_faults(server, bucket, context, prefix="train/"):
    """A staging that failed has left nothing that looks whole, and another one is right once the server is."""
    assert_nothing_looks_whole(context)
    server.faults.clear()
    product = stage_references([reference(server, bucket, prefix.rstrip("/"))], context)
    assert_right(server, bucket, context, product, prefix)
