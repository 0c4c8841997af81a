"""The memory that a staging takes does not grow with what is staged; the figures are those of docs/data.md."""

import json
import os
import subprocess
import sys

import pytest

from tests.integration.fault_server import made_up, run_fault_server

MEBIBYTE = 1 << 20
MOST_IN_FLIGHT = 230 * 10**6
"""Bytes that a staging holds at most, above what Python and its libraries take, whatever the size of an object."""
MOST_OF_A_KEY = 800
"""Bytes of a listed object: its key and its version, and nothing of the answer that it came in."""
SLOW = [pytest.mark.slow, pytest.mark.skipif("SLOW_TESTS" not in os.environ, reason="SLOW_TESTS is not set: minutes")]

# The peak is that of the process since "5" was written (proc(5), clear_refs): not that of whoever started it.
MEASURE = """
import json, re, sys
from pathlib import Path
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references
from trainyard.tasks.staging.listing import list_reference

what, endpoint_url, bucket, home = sys.argv[1:]

def look(key):
    reference = Datastore(url=f"s3://{bucket}", endpoint_url=endpoint_url).path(key)
    if what == "list":
        return len(list_reference(reference).objects)
    product = stage_references([reference], StageContext(store_url=f"{home}/store", home=Path(home)))
    return product.datasets[0].num_bytes

def memory(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

look("first")  # imports, connections and threads
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
print(json.dumps({"found": look("data"), "grown_bytes": memory("VmHWM") - before}))
"""


@pytest.fixture
def measure(tmp_path):
    """Measures a look at a bucket in a process of its own; the server is in this one."""

    def run(what, objects, transport="auto"):
        with run_fault_server() as server:
            server.buckets["bucket"] = {"first/small.bin": made_up(10), **objects}
            environment = {
                "AWS_ACCESS_KEY_ID": "fault-server-key",
                "AWS_SECRET_ACCESS_KEY": "fault-server-secret",
                "TRAINYARD_S3_TRANSPORT": transport,
            }
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, what, server.endpoint_url, "bucket", str(tmp_path / "home")],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.mark.parametrize("transport", ["auto", "s3fs"])
@pytest.mark.parametrize("num_bytes", [512 * MEBIBYTE, pytest.param(20 * 10**9, marks=SLOW)])
def test_an_object_of_any_size_is_never_in_memory_as_a_whole(measure, num_bytes, transport):
    measured = measure("stage", {"data/huge.bin": made_up(num_bytes)}, transport)
    assert measured["found"] == num_bytes
    assert measured["grown_bytes"] < MOST_IN_FLIGHT


@pytest.mark.parametrize("num_objects", [20_000, pytest.param(100_000, marks=SLOW)])
def test_a_listing_holds_what_it_needs_of_each_object(measure, num_objects):
    small = made_up(1000)
    measured = measure("list", {f"data/{n % 100:02}/{n:07}.bin": small for n in range(num_objects)})
    assert measured["found"] == num_objects
    assert measured["grown_bytes"] < num_objects * MOST_OF_A_KEY
