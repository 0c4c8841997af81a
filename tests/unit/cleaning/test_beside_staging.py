"""A garbage collection beside a staging takes nothing that the staging found in the pool and has yet to link."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from tests.unit.staging.staged import contents, staged_path
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.cleaning import collect as collect_module
from trainyard.tasks.cleaning.collect import collect_garbage
from trainyard.tasks.cleaning.plan import Limits
from trainyard.tasks.cleaning.staging_at_work import is_staging
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references
from trainyard.tasks.staging.pool import ObjectPool
from trainyard.tasks.staging.progress import ProgressMeter

OLD_S = 40 * 24 * 3600


@pytest.fixture
def context(tmp_path):
    return StageContext(store_url=str(tmp_path / "home" / "store"), home=tmp_path / "home")


@pytest.fixture
def source(tmp_path, context):
    """Five files whose bytes are in the pool of old, and whose dataset is gone; and one that is new."""
    source = tmp_path / "source"
    source.mkdir()
    for n in range(5):
        (source / f"{n}.bin").write_bytes(os.urandom(1000))
    stage_references([Datastore(url=str(source)).as_mount()], context)
    shutil.rmtree(context.home / "datasets")
    for path in pool(context):
        os.utime(path, (time.time() - OLD_S,) * 2)
    (source / "new.bin").write_bytes(os.urandom(1000))
    return source


def pool(context):
    return [Path(path) for path in (context.home / "objects").glob("??/*")]


def collect(context):
    return collect_garbage(context.store, context.home, Limits(max_bytes=0, keep_s=0), dry_run=False)


def test_what_a_staging_found_in_the_pool_stays_until_it_ends(context, source, monkeypatch):
    collections = []

    def collect_once(meter):
        if not collections:
            assert is_staging(context.home)
            collections.append(collect(context))

    monkeypatch.setattr(ProgressMeter, "tick", collect_once)  # at the first batch
    product = stage_references([Datastore(url=str(source)).as_mount()], context)
    assert contents(staged_path(context, product)) == contents(source)
    assert collections[0].home.blobs == () and collections[0].home.needed_bytes >= 5000
    assert not is_staging(context.home)


def test_a_staging_that_is_killed_keeps_nothing_from_going(context, source):
    partial = context.home / "objects" / "partial"
    (partial / "dead").mkdir(parents=True)
    (partial / "dead.lock").touch()
    assert not is_staging(context.home)
    collect(context)
    assert pool(context) == []


def test_a_staging_that_begins_right_before_the_pool_is_cleaned_is_seen(context, source, monkeypatch):
    answers = iter([False, True])
    monkeypatch.setattr(collect_module, "is_staging", lambda home: next(answers))
    collect(context)
    assert len(pool(context)) == 5


def test_a_staging_that_begins_while_the_pool_is_cleaned_looks_at_it_afterwards(context, source, monkeypatch):
    """Between the look for stagings and the last unlink, a staging waits before it looks at what is there."""
    cleaning, looked = threading.Event(), []
    pool_files, find_held = collect_module.pool_files, ObjectPool.find_held

    def slowly(home):
        cleaning.set()
        time.sleep(0.5)
        yield from pool_files(home)
        looked.append("cleaned")

    def find(self, claims):
        looked.append("found")
        return find_held(self, claims)

    monkeypatch.setattr(collect_module, "pool_files", slowly)
    monkeypatch.setattr(ObjectPool, "find_held", find)
    collection = threading.Thread(target=collect, args=(context,))
    collection.start()
    assert cleaning.wait(30)
    product = stage_references([Datastore(url=str(source)).as_mount()], context)
    collection.join(30)
    assert looked[:2] == ["cleaned", "found"]
    assert contents(staged_path(context, product)) == contents(source)
