"""The index in bulk: what it says of many objects and files at once is what it would say of each."""

import os
import time
import uuid
from contextlib import closing
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.tasks.artifacts.digests import digest_bytes
from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.staging import index as index_module
from trainyard.tasks.staging.index import StagingIndex

KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=4)
VERSIONS = st.dictionaries(KEYS, st.sampled_from(["", "1", "2"]), max_size=12)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    index = StagingIndex(tmp_path_factory.mktemp("index") / "index.sqlite")
    yield index
    index.close()


@given(before=VERSIONS, now=VERSIONS)
@settings(deadline=None, max_examples=25)
def test_known_is_what_was_remembered_in_the_listed_version(index, before, now):
    example = uuid.uuid4().hex
    with index.batch():
        for source in ("a", "b", "c"):
            for key, version in before.items():
                info = ObjectInfo(key, 1, version)
                index.remember_object(f"{example} {source}", info, f"{source} {key} {version}")
    listed = [ObjectInfo(key, 1, version) for key, version in sorted(now.items())]
    expected = {key: f"b {key} {version}" for key, version in now.items() if version and before.get(key) == version}
    assert index.known_digests(f"{example} b", listed) == expected
    assert index.known_digests(f"{example} b", [ObjectInfo(info.key, 2, info.version) for info in listed]) == {}


def test_many_files_are_told_apart_and_only_changed_ones_are_read(index, tmp_path, monkeypatch):
    claims = []
    for n in range(1203):
        path, data = tmp_path / str(n), b"%d" % n
        path.write_bytes(data)
        claims.append((str(path), len(data), digest_bytes(data)))
    assert [intact for _, intact in index.check_files(claims)] == [True] * 1203
    time.sleep(0.02)
    (tmp_path / "7").write_bytes(b"8")
    (tmp_path / "700").unlink()
    (tmp_path / "1200").unlink()
    (tmp_path / "1200").symlink_to("1100")
    os.utime(tmp_path / "1001")  # touched, and the same
    read = []
    digest_file = index_module.digest_file
    monkeypatch.setattr(index_module, "digest_file", lambda path, *_: read.append(path.name) or digest_file(path))
    checked = list(index.check_files(iter(claims)))
    assert [claim for claim, _ in checked] == claims
    assert [n for n, (_, intact) in enumerate(checked) if not intact] == [7, 700, 1200]
    assert read == ["7", "1001"]


def test_where_nothing_can_be_written_what_saves_time_is_left_out(tmp_path):
    with closing(StagingIndex(tmp_path / "index.sqlite")) as index:
        index.remember_directory("dataset", "state")
        index.remember_product("source", "listing", "product")
        index._file.run(lambda connection: connection.execute("PRAGMA query_only = ON"))
        index.remember_directory("dataset", "other")
        index.remember_product("source", "other", "product")
        assert index.is_proven("dataset", "state") and not index.is_proven("dataset", "other")
        assert index.known_product("source", "listing") == "product"
        assert index.known_product("source", "other") is None


def test_a_proven_file_is_not_hashed_again_until_it_changes(index, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"alpha")
    claimed = "f" * 64  # not its digest: believed only because the file is as it was when that was remembered
    index.remember_file(file.lstat(), claimed)
    assert index.is_intact(file, 5, claimed)
    time.sleep(0.02)
    file.write_bytes(b"ALPHA")
    assert not index.is_intact(file, 5, claimed)


NOT_THE_LINK_ALONE = {
    "written to before the link": ("before", {"st_mtime_ns": 1, "st_ctime_ns": 1}),
    "changed in secret before the link": ("before", {"st_ctime_ns": 1}),
    "another file before the link": ("proven", {"st_ino": 1}),
    "another file after the link": ("proven before", {"st_ino": 1}),
    "written to after the link": ("proven before", {"st_mtime_ns": 1}),
    "longer after the link": ("proven before", {"st_size": 6}),
}


@pytest.mark.parametrize(("when", "change"), NOT_THE_LINK_ALONE.values(), ids=NOT_THE_LINK_ALONE)
def test_a_link_is_believed_only_where_nothing_else_happened_to_the_file(index, tmp_path, when, change):
    (tmp_path / "file").write_bytes(b"alpha")
    proven = before = (tmp_path / "file").lstat()
    os.link(tmp_path / "file", tmp_path / "link")
    after = (tmp_path / "link").lstat()
    fields = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    looks = {"proven": proven, "before": before, "after": after}
    for look in when.split():
        looks[look] = SimpleNamespace(**{**{name: getattr(looks[look], name) for name in fields}, **change})
    claimed = "f" * 64  # not its digest: believed only where it was remembered
    index.follow_change(*looks.values(), claimed)
    assert not index.is_intact(tmp_path / "link", 5, claimed)
    index.follow_change(proven, before, after, claimed)
    assert index.is_intact(tmp_path / "link", 5, claimed)
