"""Staging from a real S3 server: what is there, what is not, and what changes or breaks midway."""

import os
import socket
import threading
import uuid
import zipfile
from contextlib import suppress

import pytest

from tests.integration.s3_proxy import run_s3_proxy
from tests.integration.s3_server import run_s3_server
from tests.processes import wait_for
from trainyard.tasks.artifacts.datasets import dataset_path
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.errors import (
    InvalidInputError,
    ObjectChangedError,
    StorageAccessError,
    StorageNotFoundError,
    StorageUnavailableError,
)
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references
from trainyard.tasks.staging.listing import list_reference, listing_components
from trainyard.tasks.staging.probe import probe_reference

MEBIBYTE = 1 << 20


@pytest.fixture(autouse=True)
def credentials(s3_server, monkeypatch):
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(s3_server):
    return s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def proxy(s3_server):
    with run_s3_proxy(s3_server.endpoint_url) as proxy:
        yield proxy


def datastore(server, bucket, key="", **settings):
    return Datastore(url=f"s3://{bucket.name}{key}", endpoint_url=server.endpoint_url, **settings)


def put_objects(bucket, num_objects):
    (bucket / "train" / "deep").mkdir(parents=True)
    for n in range(num_objects):
        folder = "train/deep" if n % 2 else "train"
        (bucket / folder / f"{n:03}.txt").write_text(f"object {n}\n" * n)


def files_below(directory):
    return {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}


def test_a_prefix_arrives_byte_for_byte(s3_server, bucket, context):
    put_objects(bucket, 8)
    (bucket / "other.txt").write_text("not below the prefix")
    [dataset] = stage_references([datastore(s3_server, bucket).path("train/")], context).datasets
    staged = files_below(dataset_path(context.home, dataset))
    expected = files_below(bucket / "train")
    assert {name: path.read_bytes() for name, path in staged.items()} == {
        name: path.read_bytes() for name, path in expected.items()
    }
    assert (dataset.num_objects, dataset.single_object) == (8, False)


def test_one_object_is_a_file(s3_server, bucket, context):
    (bucket / "digits.npz").write_bytes(b"\x00\x01" * 1000)
    [dataset] = stage_references([datastore(s3_server, bucket).path("digits.npz")], context).datasets
    path = dataset_path(context.home, dataset)
    assert (path.name, path.read_bytes()) == ("digits.npz", b"\x00\x01" * 1000)


def test_an_object_of_several_blocks_arrives(proxy, bucket, context):
    content = os.urandom(20 * MEBIBYTE + 17)
    (bucket / "big.bin").write_bytes(content)
    [dataset] = stage_references([datastore(proxy, bucket).as_mount()], context).datasets
    assert (dataset_path(context.home, dataset) / "big.bin").read_bytes() == content
    assert len(proxy.reads) <= 3


def test_the_identity_is_that_of_the_bytes_wherever_they_come_from(s3_server, bucket, context, tmp_path):
    put_objects(bucket, 3)
    copy = Datastore(url=str(bucket / "train"))
    remote = datastore(s3_server, bucket).path("train")
    staged = stage_references([remote, copy.as_mount()], context).datasets
    assert staged[0].sha256 == staged[1].sha256
    assert [dataset.uri for dataset in staged] == [remote.uri, copy.url]
    assert staged[0].manifest.sha256 != staged[1].manifest.sha256


def test_nothing_unchanged_is_transferred(proxy, bucket, context):
    put_objects(bucket, 6)
    reference = datastore(proxy, bucket).path("train")
    first = stage_references([reference], context)
    assert len(proxy.reads) == 6
    proxy.reads.clear()
    assert stage_references([reference], context) == first
    assert proxy.reads == []
    (bucket / "train" / "000.txt").write_text("changed")
    (bucket / "train" / "new.txt").write_text("new")
    (bucket / "train" / "002.txt").unlink()
    [dataset] = stage_references([reference], context).datasets
    assert sorted(proxy.reads) == [f"/{bucket.name}/train/000.txt", f"/{bucket.name}/train/new.txt"]
    assert files_below(dataset_path(context.home, dataset)).keys() == files_below(bucket / "train").keys()


def test_the_key_of_the_stage_changes_with_any_object(s3_server, bucket):
    put_objects(bucket, 3)
    reference = datastore(s3_server, bucket).path("train")
    before = listing_components([list_reference(reference)])
    assert listing_components([list_reference(reference)]) == before
    (bucket / "train" / "000.txt").write_text("X")
    assert listing_components([list_reference(reference)]) != before


def test_an_interrupted_staging_goes_on_where_it_was(proxy, bucket, context):
    put_objects(bucket, 30)
    reference = datastore(proxy, bucket).path("train")
    proxy.cut_reads_from = 21
    with pytest.raises(StorageUnavailableError, match=bucket.name):
        stage_references([reference], context)
    assert not (context.home / "datasets").exists()
    assert list((context.home / "objects" / "partial").iterdir()) == []
    proxy.cut_reads_from = None
    proxy.reads.clear()
    [dataset] = stage_references([reference], context).datasets
    assert dataset.num_objects == 30
    assert len(proxy.reads) <= 10


def test_a_server_killed_midway_is_a_transient_error_and_staging_resumes(tmp_path, context):
    with run_s3_server(tmp_path / "mortal") as mortal, run_s3_proxy(mortal.endpoint_url) as proxy:
        bucket = mortal.create_bucket("mortal")
        put_objects(bucket, 12)
        reference = datastore(proxy, bucket).path("train")
        proxy.before_read = lambda path, nth: mortal.stop() if nth == 7 else None
        with pytest.raises(StorageUnavailableError, match="check the endpoint"):
            stage_references([reference], context)
        done = len(list((context.home / "objects").glob("??/*")))
        assert done > 0
        proxy.reads.clear()
        with run_s3_server(tmp_path / "mortal") as revived:
            proxy.upstream_url = revived.endpoint_url
            [dataset] = stage_references([reference], context).datasets
        assert (dataset.num_objects, len(proxy.reads)) == (12, 12 - done)


@pytest.mark.parametrize("enforce_if_match", [True, False], ids=["server refuses", "server ignores If-Match"])
def test_an_object_overwritten_midway_is_an_error_never_a_mixture(proxy, bucket, context, enforce_if_match):
    proxy.enforce_if_match = enforce_if_match
    target = bucket / "big.bin"
    target.write_bytes(b"a" * (20 * MEBIBYTE))

    def overwrite(path, nth):
        if nth == 2:
            other = bucket / "other.tmp"
            other.write_bytes(b"b" * (20 * MEBIBYTE))
            other.replace(target)

    proxy.before_read = overwrite
    reference = datastore(proxy, bucket).path("big.bin")
    with pytest.raises(ObjectChangedError, match=r"big\.bin"):
        stage_references([reference], context)
    [dataset] = stage_references([reference], context).datasets
    assert set(dataset_path(context.home, dataset).read_bytes()) == {ord("b")}


def test_an_object_overwritten_after_the_listing_is_an_error(proxy, bucket, context):
    (bucket / "a.txt").write_text("old")
    proxy.before_read = lambda path, nth: (bucket / "a.txt").write_text("new")
    with pytest.raises(ObjectChangedError):
        stage_references([datastore(proxy, bucket).as_mount()], context)


def test_an_object_deleted_after_the_listing_is_one_that_changed(proxy, bucket, context):
    (bucket / "a.txt").write_text("old")
    (bucket / "b.txt").write_text("old")
    proxy.before_read = lambda path, nth: (bucket / "a.txt").unlink(missing_ok=True)
    with pytest.raises(ObjectChangedError, match=r"a\.txt"):
        stage_references([datastore(proxy, bucket).as_mount()], context)


def test_probe_accepts_what_can_be_staged(s3_server, bucket):
    put_objects(bucket, 2)
    store = datastore(s3_server, bucket)
    for reference in (store.as_mount(), store.path("train"), store.path("train/deep/"), store.path("train/000.txt")):
        probe_reference(reference)


def test_probe_reads_no_object(proxy, bucket):
    put_objects(bucket, 2)
    probe_reference(datastore(proxy, bucket).as_mount())
    assert proxy.reads == []


@pytest.mark.parametrize("look", [probe_reference, list_reference])
def test_what_is_missing_is_named(s3_server, bucket, look):
    (bucket / "a.txt").write_text("a")
    with pytest.raises(StorageNotFoundError, match="bucket 'no-such-bucket'"):
        look(Datastore(url="s3://no-such-bucket", endpoint_url=s3_server.endpoint_url).as_mount())
    with pytest.raises(StorageNotFoundError, match="bucket 'no-such-bucket'"):
        look(Datastore(url="s3://no-such-bucket/x", endpoint_url=s3_server.endpoint_url).as_mount())
    with pytest.raises(StorageNotFoundError, match=r"no-such-key: the bucket exists"):
        look(datastore(s3_server, bucket).path("no-such-key"))


@pytest.mark.parametrize("look", [probe_reference, list_reference])
def test_an_empty_bucket_is_bad_input(s3_server, bucket, look):
    with pytest.raises(InvalidInputError, match=f"s3://{bucket.name} is empty"):
        look(datastore(s3_server, bucket).as_mount())


@pytest.mark.parametrize("key", ["", "a.txt"], ids=["bucket", "object"])
def test_every_refusal_says_what_to_do(s3_server, bucket, monkeypatch, key):
    (bucket / "a.txt").write_text("a")
    reference = datastore(s3_server, bucket).path(key)
    probe_reference(reference)
    # One process, one datastore: the environment changes, and what was remembered must not be used.
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageAccessError, match="check AWS_SECRET_ACCESS_KEY, or the storage options of the"):
        probe_reference(reference)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
    with pytest.raises(StorageAccessError, match="check AWS_ACCESS_KEY_ID, or the storage options of the"):
        probe_reference(reference)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageAccessError, match=r"No credentials .* set AWS_ACCESS_KEY_ID"):
        probe_reference(reference)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageAccessError, match="ProfileNotFound"):
        probe_reference(reference)


def test_no_message_holds_a_secret(s3_server, bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-indeed")
    with pytest.raises(StorageAccessError) as caught:
        probe_reference(datastore(s3_server, bucket).as_mount())
    assert "very-secret" not in str(caught.value)


def test_anonymous_access_that_is_refused_says_so(s3_server, bucket):
    with pytest.raises(StorageAccessError, match="anonymous"):
        probe_reference(datastore(s3_server, bucket, anonymous=True).as_mount())


def test_an_endpoint_that_does_not_answer_is_given_up_soon():
    """After a few attempts, as many as its client makes: whoever asked is told, and may ask again."""
    num_attempts = 0

    def hang_up():
        nonlocal num_attempts
        with suppress(OSError):
            while True:
                listening.accept()[0].close()
                num_attempts += 1

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=hang_up, daemon=True).start()
        endpoint_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(StorageUnavailableError, match="check the endpoint"):
            probe_reference(Datastore(url="s3://b", endpoint_url=endpoint_url).as_mount())
        listening.shutdown(socket.SHUT_RDWR)
    assert 0 < num_attempts <= 10


def test_an_endpoint_where_nobody_listens_is_told():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint_url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(StorageUnavailableError, match="check the endpoint"):
            probe_reference(Datastore(url="s3://b", endpoint_url=endpoint_url).as_mount())


def test_a_bucket_name_that_cannot_be_is_bad_input(s3_server):
    with pytest.raises(InvalidInputError, match="Invalid bucket name"):
        probe_reference(Datastore(url="s3://not_a!bucket", endpoint_url=s3_server.endpoint_url).as_mount())


def test_a_store_on_s3_keeps_and_gives_back(s3_server, bucket):
    options = {"client_kwargs": {"endpoint_url": s3_server.endpoint_url}}
    root = Location(f"s3://{bucket.name}/store", options)
    (root / "a/b").write_bytes(b"one")
    assert ((root / "a/b").read_bytes(), (root / "a/b").exists(), root.list_names()) == (b"one", True, ["a"])
    assert not (root / "a/b").create_bytes(b"two")
    assert (root / "a/c").create_bytes(b"two")
    (root / "a/b").delete()
    assert not (root / "a/b").exists()


def test_the_task_runs_then_reuses_and_stages_through_a_block(
    prefect_server, s3_server, bucket, context, monkeypatch, tmp_path, caplog
):
    from prefect import flow, runtime

    from trainyard.tasks.blocks import DatastoreBlock
    from trainyard.tasks.staging.task import stage

    caplog.set_level("DEBUG", logger="trainyard")
    caplog.set_level("INFO")
    put_objects(bucket, 3)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)  # the block has them
    DatastoreBlock(
        url=f"s3://{bucket.name}",
        endpoint_url=s3_server.endpoint_url,
        storage_options={"key": s3_server.access_key_id, "secret": s3_server.secret_access_key},
    ).save("staging-test", overwrite=True)
    loaded = Datastore.load("staging-test")
    assert loaded == Datastore(url=f"s3://{bucket.name}", block="staging-test")

    run_ids = []

    @flow
    def staging(datastore: Datastore):
        run_ids.append(runtime.flow_run.id)
        state = stage((datastore.path("train"),), context, return_state=True)
        return state.name, state.result()

    (first_name, first), (second_name, second) = staging(loaded), staging(loaded)
    assert (first_name, first.status) == ("Completed", "ran")
    assert (second_name, second.status) == ("Cached", "cached")
    assert second.product == first.product
    secret = s3_server.secret_access_key.encode()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"store", "home"} <= {path.relative_to(tmp_path).parts[0] for path in files}
    assert [path for path in files if secret in path.read_bytes()] == []
    assert s3_server.secret_access_key not in first.model_dump_json()
    assert s3_server.secret_access_key not in caplog.text
    told = [what_the_server_knows(prefect_server, run_id) for run_id in run_ids]
    assert all("staging-test" in each for each in told) and "Staging: " in told[0]
    assert not any(s3_server.secret_access_key in each for each in told)


def what_the_server_knows(api_url, run_id):
    """Of a flow run: itself with its parameters, every line of its log, and its task runs.

    Of those it learns by events, which come late where the machine is busy: they are looked at if they are there.
    """
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    with SyncPrefectClient(api_url) as client:

        def task_runs():
            return client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))

        def lines():
            return client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id])))

        def all_told():
            return any(line.message.startswith("Finished") and not line.task_run_id for line in lines())

        assert wait_for(all_told, 60)
        known = [client.read_flow_run(run_id), *task_runs(), *lines()]
    return "\n".join(each.model_dump_json() for each in known)


def test_a_block_that_is_not_there_is_bad_input(prefect_server):
    with pytest.raises(InvalidInputError, match="no Prefect block 'no-such-block'"):
        Datastore.load("no-such-block")
    with pytest.raises(InvalidInputError, match="no Prefect block 'no-such-block'"):
        probe_reference(Datastore(url="s3://b", block="no-such-block").as_mount())


def test_an_archive_in_a_bucket(s3_server, bucket, context, monkeypatch):
    """Settings and credentials are those of the last link: the bucket's."""
    with zipfile.ZipFile(bucket / "data.zip", "w") as archive:
        archive.writestr("train/a.txt", "alpha")
    reference = Datastore(url=f"zip://::s3://{bucket.name}/data.zip", endpoint_url=s3_server.endpoint_url).path("train")
    [dataset] = stage_references([reference], context).datasets
    assert (dataset_path(context.home, dataset) / "a.txt").read_text() == "alpha"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageAccessError, match="was refused"):
        stage_references([reference], context)
