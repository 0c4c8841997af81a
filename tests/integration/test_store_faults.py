"""A store on S3 whose server fails: what is read is right, or an error."""

import shutil
import uuid
from datetime import timedelta
from importlib.util import find_spec

import pytest

from tests.integration.fault_server import run_fault_server
from trainyard.tasks.artifacts.s3_objects import BLOCK_BYTES
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ArtifactDamagedError, TransientError

NUM_FILES = 40


@pytest.fixture(scope="module")
def server():
    with run_fault_server() as server:
        yield server


@pytest.fixture(params=["obstore", "s3fs"], autouse=True)
def transport(request, monkeypatch, server):
    if request.param == "obstore" and not find_spec("obstore"):
        pytest.skip("obstore is not installed")
    monkeypatch.setenv("TRAINYARD_S3_TRANSPORT", "auto" if request.param == "obstore" else "s3fs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "fault-server-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fault-server-secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
    server.faults.clear()
    server.buckets.clear()


@pytest.fixture
def bucket():
    return f"store-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def stored(server, bucket, tmp_path):
    """A tree that is on the server; its files, its reference, and the server's store."""
    files = {f"{n:02}.bin": bytes([n]) * (n * 1000 + 1) for n in range(NUM_FILES)}
    files["large.bin"] = b"0123456789abcdef" * (BLOCK_BYTES // 16) + b"the end"
    (tmp_path / "tree").mkdir()
    for name, data in files.items():
        (tmp_path / "tree" / name).write_bytes(data)
    local = tmp_path / "store"
    ref = ArtifactStore(str(local)).put_tree(tmp_path / "tree")
    on_disk = [path for path in local.rglob("*") if path.is_file()]
    server.put(bucket, {path.relative_to(local).as_posix(): path.read_bytes() for path in on_disk})
    shutil.rmtree(local)
    return files, ref, ArtifactStore(f"s3://{bucket}")


@pytest.mark.parametrize("kind", ["truncated", "short chunk", "reset", "500", "503"])
def test_faults_that_pass_are_mended(server, stored, tmp_path, kind):
    files, ref, store = stored
    fault = server.add_fault(kind, lambda key, nth: nth == 1 and int(key[-2:], 16) % 8 == 0)
    folder = store.materialize(ref, tmp_path / "got")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert fault.num_strikes >= 1


def test_a_fault_that_stays_is_an_error_that_a_retry_may_mend(server, stored, tmp_path):
    _, ref, store = stored
    server.add_fault("truncated", lambda key, nth: ref.sha256 not in key)
    with pytest.raises(TransientError):
        store.materialize(ref, tmp_path / "got")
    assert list(tmp_path.glob("got*")) == []
    with pytest.raises(TransientError):
        store.verify(ref)


def test_damaged_and_missing_objects_are_told_apart_from_a_server_that_fails(server, bucket, stored, tmp_path):
    _, ref, store = stored
    store.verify(ref)
    [key] = [key for key in server.buckets[bucket] if store.find_entry(ref, "07.bin").sha256 in key]
    whole = server.buckets[bucket][key]
    server.put(bucket, {key: bytes([8]) * 7001})
    with pytest.raises(ArtifactDamagedError, match="is damaged"):
        store.verify(ref)
    with pytest.raises(ArtifactDamagedError, match="is damaged"):
        store.materialize(ref, tmp_path / "got")
    assert list(tmp_path.glob("got*")) == []
    del server.buckets[bucket][key]
    with pytest.raises(ArtifactDamagedError, match="is missing"):
        store.verify(ref)
    server.buckets[bucket][key] = whole
    store.verify(ref)


def test_what_is_stored_again_is_written_again_before_it_is_old(server, bucket):
    """A garbage collection on another machine sees on a server only when something was written."""
    store = ArtifactStore(f"s3://{bucket}")
    server.put(bucket, {})
    ref = store.put_bytes(b"alpha")
    [object_] = server.buckets[bucket].values()
    store.put_bytes(b"alpha")
    assert list(server.buckets[bucket].values()) == [object_], "as it was"
    object_.modified -= timedelta(minutes=40)
    assert store.put_bytes(b"alpha") == ref
    [renewed] = server.buckets[bucket].values()
    assert renewed.modified > object_.modified
