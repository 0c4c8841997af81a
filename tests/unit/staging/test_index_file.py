"""An index that cannot be used costs time, and nothing else."""

import multiprocessing
import os
import sqlite3
from contextlib import closing

import pytest

from tests.unit.staging.staged import contents, staged_path
from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging import index_file
from trainyard.tasks.staging.dataset import stage_references, verify_staged
from trainyard.tasks.staging.index import StagingIndex

PAGE_BYTES = 4096
OBJECTS = [ObjectInfo(f"{n:05}", 1, "1") for n in range(2_000)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "index.sqlite"
    with closing(StagingIndex(path)) as index:
        fill(index)
    return path


def fill(index):
    with index.batch():
        for info in OBJECTS:
            index.remember_object("s3://source", info, "digest")
    for n in range(60):
        index.remember_product(f"{n}", "listing", "product" * 9)
        index.remember_directory(f"{n}", "state" * 9)


def overwrite(path):
    """From the eighth page on, as a disk or a person may do; what is before it says that all is well."""
    assert path.stat().st_size > 20 * PAGE_BYTES
    with path.open("r+b") as stream:
        stream.seek(7 * PAGE_BYTES)
        stream.write(b"\xa5" * (path.stat().st_size - 7 * PAGE_BYTES))


def of_another_release(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("ALTER TABLE sources RENAME COLUMN version TO etag; PRAGMA user_version = 99;")


def without_a_column(path):
    """Though it says that it is of this release."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE sources RENAME COLUMN version TO etag")
        connection.execute("ALTER TABLE proofs RENAME COLUMN sha256 TO digest")
        connection.execute("ALTER TABLE listings RENAME COLUMN product TO came_to")
        connection.execute("ALTER TABLE directories RENAME COLUMN state TO stood")


def no_database(path):
    path.write_bytes(b"not a database" * 1000)


HARMS = [overwrite, of_another_release, without_a_column, no_database]
USES = {
    "digests": lambda index: index.known_digests("s3://source", OBJECTS),
    "product": lambda index: [index.known_product(str(n), "listing") for n in range(60)],
    "directory": lambda index: [index.is_proven(str(n), "state" * 9) for n in range(60)],
    "files": lambda index: list(index.check_files([(__file__, os.path.getsize(__file__), "no digest")])),
    "writes": lambda index: fill(index),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("harm", HARMS)
def test_whatever_is_asked_of_a_damaged_index_it_goes_on(path, harm, use):
    harm(path)
    with closing(StagingIndex(path)) as index:
        USES[use](index)
        USES["digests"](index)  # at the latest here it is noticed
        fill(index)
        assert len(index.known_digests("s3://source", OBJECTS)) == len(OBJECTS)
        assert index.known_product("1", "listing") == "product" * 9
        assert index.is_proven("1", "state" * 9)


def test_an_index_that_is_damaged_while_it_is_open_is_replaced_with_what_was_to_be_written(path):
    with closing(StagingIndex(path)) as index:
        overwrite(path)
        fill(index)
    with closing(StagingIndex(path)) as index:
        assert len(index.known_digests("s3://source", OBJECTS)) == len(OBJECTS)


def test_who_has_an_index_open_that_another_replaced_goes_on_with_the_new_one(path):
    with closing(StagingIndex(path)) as one:
        no_database(path.with_name("other"))
        os.replace(path.with_name("other"), path)
        with closing(StagingIndex(path)) as other:
            one.remember_object("s3://more", OBJECTS[0], "digest")
            assert other.known_digests("s3://more", OBJECTS[:1]) == {"00000": "digest"}


def test_an_index_that_is_right_is_not_replaced(path):
    inode = path.stat().st_ino
    with closing(StagingIndex(path)) as index:
        assert len(index.known_digests("s3://source", OBJECTS)) == len(OBJECTS)
    assert path.stat().st_ino == inode


@pytest.mark.parametrize("message", ["database or disk is full", "database is locked", "disk I/O error"])
def test_what_is_no_damage_is_an_error_and_leaves_the_index(path, message):
    def fail(connection):
        raise sqlite3.OperationalError(message)

    with closing(index_file.IndexFile(path)) as file, pytest.raises(sqlite3.OperationalError, match=message):
        file.run(fail)
    with closing(StagingIndex(path)) as index:
        assert len(index.known_digests("s3://source", OBJECTS)) == len(OBJECTS)


def open_together(path, all_there):
    all_there.wait(60)
    with closing(StagingIndex(path)) as index:
        index.remember_object(str(os.getpid()), OBJECTS[0], "digest")


def test_processes_that_make_the_index_at_once_make_one(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    all_there, path = spawn.Barrier(3), tmp_path / "index.sqlite"
    children = [spawn.Process(target=open_together, args=(path, all_there)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    with closing(StagingIndex(path)) as index:
        assert all(index.known_digests(str(child.pid), OBJECTS[:1]) for child in children)


@pytest.mark.parametrize("harm", HARMS)
def test_a_staging_with_a_damaged_index_goes_on(tmp_path, context, harm):
    source = tmp_path / "source"
    source.mkdir()
    for n in range(1_500):
        (source / f"{n:04}").write_text(str(n))
    reference = Datastore(url=str(source)).as_mount()
    product = stage_references([reference], context)
    harm(context.home / "objects" / "index.sqlite")
    verify_staged(product, context)
    harm(context.home / "objects" / "index.sqlite")
    assert stage_references([reference], context) == product
    reports = []
    assert stage_references([reference], context, reports.append) == product
    assert reports[-1].transferred_bytes == 0
    assert contents(staged_path(context, product)) == contents(source)


def test_a_file_of_before_it_had_a_number_is_kept(tmp_path):
    path = tmp_path / "index.sqlite"
    with closing(StagingIndex(path)) as index:
        index.remember_object("s3://source", OBJECTS[0], "f" * 64)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA user_version = 0; DROP TABLE listings;")
    with closing(StagingIndex(path)) as index:
        assert index.known_digests("s3://source", OBJECTS[:1]) == {OBJECTS[0].key: "f" * 64}
        assert index.known_product("s3://source", "any") is None


def test_a_mistake_of_ours_is_no_damage_and_leaves_no_transaction_open(path):
    file = index_file.IndexFile(path)
    # A value that is not given, and a key that may not be empty.
    for mistake in ("INSERT INTO sources (source) VALUES (?)", "INSERT INTO sources (source) VALUES ('x')"):

        def work(connection, mistake=mistake):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(mistake)

        with pytest.raises((sqlite3.ProgrammingError, sqlite3.IntegrityError)):
            file.run(work)
        file.run(lambda connection: connection.execute("BEGIN IMMEDIATE"))
        file.run(lambda connection: connection.execute("COMMIT"))
    file.close()
    with closing(StagingIndex(path)) as index:
        assert len(index.known_digests("s3://source", OBJECTS)) == len(OBJECTS), "the index is what it was"
