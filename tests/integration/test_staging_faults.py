"""Everything that a network and a server can do to a staging, on thousands of small objects and on large ones.

Two promises are held: never a wrong byte, and never a half-made directory that looks whole. What a retry can mend is
mended; what it cannot ends in an error that names the object.
"""

import multiprocessing
import os
import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest

from tests.integration.fault_server import made_up, run_fault_server, stored
from trainyard.tasks.artifacts.datasets import dataset_path
from trainyard.tasks.artifacts.s3_objects import BLOCK_BYTES
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import ObjectChangedError, StorageAccessError, StorageUnavailableError, TransientError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging import access, durability, transfer
from trainyard.tasks.staging.dataset import stage_references

# Of one test; the two transports and all faults together read tens of thousands. More where time allows.
NUM_OBJECTS = int(os.environ.get("TRAINYARD_TEST_NUM_OBJECTS", "1000"))
MENDED = ("truncated", "short chunk", "reset", "stalled", "500", "503", "range ignored")
REFUSED = {"403": "refused", "skew": "clock"}
TRANSPORTS = ("obstore", "s3fs")
RANGE_STATUSES = (206, 200)


@pytest.fixture(scope="module")
def server():
    with run_fault_server() as server:
        yield server


@pytest.fixture(params=TRANSPORTS)
def transport(request, monkeypatch):
    if request.param == "obstore" and not find_spec("obstore"):
        pytest.fail("obstore is not installed: the locked environment has it (make setup)")
    monkeypatch.setenv("TRAINYARD_S3_TRANSPORT", "auto" if request.param == "obstore" else "s3fs")
    return request.param


@pytest.fixture(autouse=True)
def impatient(server, transport, monkeypatch):
    """Credentials, a client of the test's own, and time-outs for which a stalled answer need not be waited for.

    Whatever a test does, every read of it must have said which version it wants.
    """
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "fault-server-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fault-server-secret")
    options = access.storage_options
    impatient = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 2, "user_agent_extra": uuid.uuid4().hex}}
    monkeypatch.setattr(access, "storage_options", lambda datastore: {**options(datastore), **impatient})
    server.buckets.clear()
    server.faults.clear()
    server.reads.clear()
    server.read_conditions.clear()
    server.on_read = lambda key, nth: None
    server.enforce_if_match, server.range_status = True, 206
    yield
    assert all(server.read_conditions), f"{server.read_conditions.count('')} reads without If-Match"


@pytest.fixture
def bucket_name():
    return f"bucket-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def context(tmp_path):
    return StageContext(store_url=str(tmp_path / "store"), home=tmp_path / "home")


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


@pytest.mark.parametrize("range_status", RANGE_STATUSES)
def test_every_read_asks_for_the_listed_version(server, bucket_name, context, range_status):
    server.range_status = range_status
    put_small_objects(server, bucket_name, 20)
    server.buckets[bucket_name]["train/big.bin"] = made_up(3 * BLOCK_BYTES + 17)
    stage_references([reference(server, bucket_name)], context)
    asked = list(zip(server.reads, server.read_conditions, strict=True))
    assert len(asked) >= 20 + 3
    assert {key: etag for key, etag in asked} == {k: found.etag for k, found in server.buckets[bucket_name].items()}
    assert all(etag == server.buckets[bucket_name][key].etag for key, etag in asked)


@pytest.mark.parametrize("together", [False, True])
def test_every_file_is_synced_by_itself_or_with_others(server, bucket_name, context, monkeypatch, together):
    sizes = {"small": 20_000, "large": 2 << 20, "larger": 9 << 20}
    server.put(bucket_name, {f"train/{name}": os.urandom(num_bytes) for name, num_bytes in sizes.items()})
    monkeypatch.setattr(transfer, "_MANY_OBJECTS", 3 if together else 4)
    monkeypatch.setattr(durability, "_can_sync", lambda directory: True)
    alone, fsync, syncs, syncfs = set(), os.fsync, [], durability._syncfs

    def spy(descriptor):
        alone.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    monkeypatch.setattr(durability, "_syncfs", lambda descriptor: syncs.append(descriptor) or syncfs(descriptor))
    [dataset] = stage_references([reference(server, bucket_name)], context).datasets
    staged = dataset_path(context.home, dataset)
    synced_alone = {name for name in sizes if (staged / name).stat().st_ino in alone}
    assert synced_alone == ({"large", "larger"} if together else set(sizes))
    assert bool(syncs) == together


@pytest.mark.parametrize("kind", MENDED)
def test_faults_that_pass_are_mended_within_one_staging(server, bucket_name, context, kind):
    put_small_objects(server, bucket_name)
    share = NUM_OBJECTS // 4 if kind == "stalled" else 40  # a stalled answer costs its time-out
    fault = server.add_fault(kind, lambda key, nth: nth == 1 and int(key[-9:-4]) % share == 0)
    product = stage_references([reference(server, bucket_name)], context)
    assert fault.num_strikes == -(-NUM_OBJECTS // share)
    assert_right(server, bucket_name, context, product)


@pytest.mark.parametrize("range_status", RANGE_STATUSES)
@pytest.mark.parametrize("kind", MENDED)
def test_faults_that_pass_are_mended_in_a_large_object(server, bucket_name, context, kind, range_status):
    server.range_status = range_status
    server.buckets[bucket_name] = {"big.bin": made_up(5 * BLOCK_BYTES + 17)}
    fault = server.add_fault(kind, lambda key, nth: nth in (3, 5))
    product = stage_references([reference(server, bucket_name, "")], context)
    assert fault.num_strikes == 2
    assert_right(server, bucket_name, context, product, prefix="")


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
    assert_nothing_looks_whole(context)
    server.faults.clear()
    assert_right(server, bucket_name, context, stage_references([reference(server, bucket_name)], context))


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_midway_in_a_large_object_is_permanent_and_names_it(server, bucket_name, context, kind):
    """As when credentials expire, or are withdrawn, while it is read."""
    server.buckets[bucket_name] = {"big.bin": made_up(5 * BLOCK_BYTES + 17)}
    sent_before = server.sent_bytes
    fault = server.add_fault(kind, lambda key, nth: nth >= 4)
    with pytest.raises(StorageAccessError, match=f"big.bin.*{REFUSED[kind]}|{REFUSED[kind]}.*big.bin"):
        stage_references([reference(server, bucket_name, "")], context)
    assert fault.num_strikes >= 1
    assert server.sent_bytes - sent_before >= BLOCK_BYTES
    assert_nothing_looks_whole(context)
    server.faults.clear()
    product = stage_references([reference(server, bucket_name, "")], context)
    assert_right(server, bucket_name, context, product, prefix="")


@pytest.mark.parametrize("enforce_if_match", [True, False], ids=["server refuses", "server ignores If-Match"])
@pytest.mark.parametrize("where", ["small objects", "large object", "large object in one stream"])
def test_overwritten_midway_is_an_error_and_the_next_attempt_is_right(
    server, bucket_name, context, enforce_if_match, where
):
    server.enforce_if_match = enforce_if_match
    server.range_status = 200 if "stream" in where else 206
    if where == "small objects":
        put_small_objects(server, bucket_name)
        prefix, victim, nth = "train/", "train/07/00207.txt", 1
    else:
        server.buckets[bucket_name] = {"big.bin": made_up(6 * BLOCK_BYTES)}
        prefix, victim, nth = "", "big.bin", 3 if "stream" in where else 4

    def overwrite(key, n):
        if key == victim and n == nth:
            old = server.buckets[bucket_name][key]
            new = made_up(old.num_bytes, seed=7) if prefix == "" else stored(bytes(old.num_bytes))
            server.buckets[bucket_name][key] = new

    server.on_read = overwrite
    with pytest.raises(ObjectChangedError, match=victim):
        stage_references([reference(server, bucket_name, prefix)], context)
    assert_nothing_looks_whole(context)
    product = stage_references([reference(server, bucket_name, prefix)], context)
    assert_right(server, bucket_name, context, product, prefix)


@pytest.mark.parametrize("range_status", RANGE_STATUSES)
def test_another_version_that_is_gone_again_at_the_end_leaves_no_byte(server, bucket_name, context, range_status):
    """As when somebody uploads the wrong file, and the right one again: the last look finds the listed version."""
    server.enforce_if_match, server.range_status = False, range_status
    right, wrong = made_up(6 * BLOCK_BYTES), made_up(6 * BLOCK_BYTES, seed=7)
    server.buckets[bucket_name] = bucket = {"big.bin": right}
    read_wrong = wrong.read

    def read_and_put_back(start, end):
        bucket["big.bin"] = right
        return read_wrong(start, end)

    wrong.read = read_and_put_back
    server.on_read = lambda key, nth: bucket.update({"big.bin": wrong} if nth == 3 else {})
    for _ in range(2):
        try:
            product = stage_references([reference(server, bucket_name, "")], context)
            break
        except ObjectChangedError:
            assert_nothing_looks_whole(context)
    assert bucket["big.bin"] is right
    assert_right(server, bucket_name, context, product, prefix="")


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_server_without_proper_ranges_is_read_in_one_stream(server, bucket_name, context, transport, knows_ranges):
    server.range_status = 200
    server.buckets[bucket_name] = {"big.bin": made_up(5 * BLOCK_BYTES + 17)}
    if not knows_ranges:
        server.add_fault("range ignored")
    if transport == "s3fs" and not knows_ranges:
        with pytest.raises(StorageUnavailableError, match=r"big\.bin"):
            stage_references([reference(server, bucket_name, "")], context)
        return
    product = stage_references([reference(server, bucket_name, "")], context)
    assert_right(server, bucket_name, context, product, prefix="")
    # A look at how it answers, and all of it; or a look, a short answer and the rest; or blocks.
    assert len(server.reads) == {"obstore": 3 if knows_ranges else 2, "s3fs": 6}[transport]


@pytest.mark.parametrize("range_status", RANGE_STATUSES)
def test_a_first_look_that_fails_costs_no_more_than_time(server, bucket_name, context, range_status):
    server.range_status = range_status
    server.buckets[bucket_name] = {"big.bin": made_up(5 * BLOCK_BYTES + 17)}
    fault = server.add_fault("reset", lambda key, nth: nth == 1)
    product = stage_references([reference(server, bucket_name, "")], context)
    assert fault.num_strikes == 1
    assert_right(server, bucket_name, context, product, prefix="")


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


def test_a_listing_that_fails_is_never_a_smaller_dataset(server, bucket_name, context):
    put_small_objects(server, bucket_name)
    server.list_error = (500, "InternalError")
    try:
        with pytest.raises(StorageUnavailableError):
            stage_references([reference(server, bucket_name)], context)
    finally:
        server.list_error = None
    assert not (context.home / "datasets").exists()


def test_what_reads_is_what_was_asked_for(server, bucket_name, context, transport):
    put_small_objects(server, bucket_name, 20)
    server.user_agents.clear()
    stage_references([reference(server, bucket_name)], context)
    assert any("object_store" in agent for agent in server.user_agents) == (transport == "obstore")


def test_credentials_region_and_session_token_reach_the_server(server, bucket_name, context, monkeypatch):
    put_small_objects(server, bucket_name, 5)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-the-session")
    server.authorizations.clear()
    server.session_tokens.clear()
    store = Datastore(url=f"s3://{bucket_name}", endpoint_url=server.endpoint_url, region="eu-central-1")
    stage_references([store.path("train")], context)
    assert server.session_tokens == {"token-of-the-session"}
    assert all("fault-server-key/" in value and "/eu-central-1/s3/" in value for value in server.authorizations)


def test_a_profile_is_asked_for_its_credentials(server, bucket_name, context, monkeypatch, tmp_path):
    put_small_objects(server, bucket_name, 5)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    lines = ["[training]", "aws_access_key_id = key-of-the-profile", "aws_secret_access_key = not-told-to-anybody"]
    (tmp_path / "credentials").write_text("\n".join(lines))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    server.authorizations.clear()
    store = Datastore(url=f"s3://{bucket_name}", endpoint_url=server.endpoint_url, profile="training")
    stage_references([store.path("train")], context)
    assert all("Credential=key-of-the-profile/" in value for value in server.authorizations)


def test_anonymous_requests_are_not_signed(server, bucket_name, context):
    put_small_objects(server, bucket_name, 5)
    server.authorizations.clear()
    store = Datastore(url=f"s3://{bucket_name}", endpoint_url=server.endpoint_url, anonymous=True)
    stage_references([store.path("train")], context)
    assert server.authorizations == {""}


def test_virtual_addressing_names_the_bucket_in_the_host(server, bucket_name, context):
    put_small_objects(server, bucket_name, 5)
    server.hosts.clear()
    endpoint_url = server.endpoint_url.replace("127.0.0.1", "localhost")  # as are all names below it (RFC 6761)
    try:
        socket.getaddrinfo(f"{bucket_name}.localhost", None)
    except OSError:
        pytest.skip("this machine does not resolve names below localhost")
    store = Datastore(url=f"s3://{bucket_name}", endpoint_url=endpoint_url, addressing="virtual")
    stage_references([store.path("train")], context)
    assert {host.partition(":")[0] for host in server.hosts} == {f"{bucket_name}.localhost"}


def test_a_pattern_reads_only_what_it_matches(server, bucket_name, context):
    put_small_objects(server, bucket_name, 60)
    stage_references([reference(server, bucket_name, "train/0*/000?1.txt")], context)
    assert sorted(server.reads) == ["train/01/00001.txt", "train/01/00021.txt", "train/01/00041.txt"]


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
