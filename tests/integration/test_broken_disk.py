"""A disk that takes what is written, and loses it: the staging fails, and nothing is relied upon that is not there."""

import hashlib
import os
import subprocess
import time

import pytest

from tests.integration.disks import mounted_image
from tests.integration.fault_server import run_fault_server
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import PermanentError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references

NUM_OBJECTS, OBJECT_BYTES = 400, 200_000
"""80 MB, two times what the disk can keep."""


@pytest.fixture
def breaking_disk(small_disk, tmp_path):
    """A disk with ext4 that says it has 300 MiB, and has less than 40: writing back what is beyond fails.

    Without a journal: one that cannot be written would end all writing, and this is about files.
    """
    ext4 = ("mkfs.ext4", "-q", "-F", "-O", "^has_journal")
    with mounted_image(small_disk / "image", tmp_path / "breaking", 300, *ext4) as disk:
        yield disk


def digest_on_disk(path):
    """Of what the disk has of a file, not the memory in front of it."""
    direct = subprocess.run(
        ["dd", f"if={path}", "iflag=direct", "bs=1M", "status=none"], check=False, capture_output=True
    )
    return hashlib.sha256(direct.stdout).hexdigest()


def test_a_disk_that_loses_what_was_written_fails_the_staging(breaking_disk, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "fault-server-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fault-server-secret")
    context = StageContext(store_url=str(tmp_path / "store"), home=breaking_disk / "home")
    with run_fault_server() as server:
        server.put("data", {f"{n:03}.bin": os.urandom(OBJECT_BYTES) for n in range(NUM_OBJECTS)})
        server.on_read = lambda key, nth: time.sleep(0.005)  # some is on the disk before it breaks
        reference = Datastore(url="s3://data", endpoint_url=server.endpoint_url).as_mount()
        with pytest.raises(PermanentError, match=r"The disk of .* (cannot be written to|is full)"):
            stage_references([reference], context)
    assert not (context.home / "datasets").exists()
    pool = list((context.home / "objects").glob("??/*"))
    assert pool
    assert [path.name for path in pool if digest_on_disk(path) != path.name] == []
