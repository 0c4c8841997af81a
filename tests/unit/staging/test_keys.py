import os
import tempfile
import unicodedata
import uuid
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.tasks.errors import UnsafeObjectKeyError
from trainyard.tasks.staging.directories import NameProbe
from trainyard.tasks.staging.keys import check_folded, check_keys, relative_path

PARTS = st.sampled_from(["", ".", "..", "a", "A", "b.txt", "\\", "~", "\0", "é", "\ud800", " ", "x" * 300, "-rf"])
KEYS = st.one_of(st.text(max_size=40), st.lists(PARTS, min_size=1, max_size=6).map("/".join))
NEIGHBOURS = st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map("/".join)
"""Keys of which one is often a folder of another."""


@given(KEYS)
def test_a_key_is_a_file_inside_the_directory_or_is_refused(key):
    try:
        path = relative_path(key)
    except UnsafeObjectKeyError as error:
        assert repr(key) in str(error)
        return
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
        assert Path(os.path.realpath(file)).is_relative_to(os.path.realpath(directory))
        assert file.relative_to(directory).as_posix() == key


@given(st.one_of(st.sets(KEYS, max_size=6), st.sets(NEIGHBOURS, max_size=3)))
def test_accepted_keys_can_all_be_files_of_one_directory(keys):
    try:
        check_keys(keys)
    except UnsafeObjectKeyError:
        return
    with tempfile.TemporaryDirectory() as directory:
        for key in keys:
            file = Path(directory) / relative_path(key)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(key.encode())
        for key in keys:
            assert (Path(directory) / relative_path(key)).read_bytes() == key.encode()


@pytest.mark.parametrize(
    "key",
    [
        "../etc/passwd",
        "a/../../b",
        "/etc/passwd",
        "a//b",
        "a/",
        "",
        ".",
        "./a",
        "a/..",
        "a\0b",
        "\ud800",
        "x" * 256,
        "é" * 128,
        "a/" * 512 + "b",
    ],
)
def test_hostile_keys_are_refused_by_name(key):
    with pytest.raises(UnsafeObjectKeyError) as caught:
        relative_path(key)
    assert repr(key) in str(caught.value)


@pytest.mark.parametrize("key", ["a b", "..a", "a..", "...", "a\\b", "C:\\x", "é", "x" * 255, "-rf", "a/b/c.tar.gz"])
def test_odd_but_harmless_keys_are_kept_as_they_are(key):
    assert relative_path(key).as_posix() == key


def test_a_key_that_would_be_a_file_and_a_directory_is_refused():
    with pytest.raises(UnsafeObjectKeyError, match=r"'a/b'.*'a/b/c/d'"):
        check_keys(["a/b", "a/b/c/d", "z"])


FOLDING = st.lists(
    st.sampled_from(["a", "A", "\u00e9", "e\u0301", "\u00c9", "ss", "\u00df", "b"]), min_size=1, max_size=3
)


@given(st.sets(FOLDING.map("/".join), max_size=8))
def test_keys_that_a_disk_takes_for_one_are_refused_by_name_and_only_those(keys):
    def fold(name):
        return unicodedata.normalize("NFC", name.casefold())

    folds = len({fold(name) for name in _names(keys)}) < len(_names(keys))
    try:
        check_folded(keys, lambda one, other: True)
    except UnsafeObjectKeyError as error:
        assert folds
        assert "one file on this machine's disk" in str(error)
    else:
        assert not folds
    check_folded(keys, lambda one, other: False)  # a disk that tells them apart


def _names(keys):
    return {"/".join(key.split("/")[:n]) for key in keys for n in range(1, key.count("/") + 2)}


def test_this_disk_is_asked_not_guessed(tmp_path):
    probe = NameProbe(tmp_path)
    (tmp_path / "probe").mkdir()
    assert probe("A/b", "a/B") == (tmp_path / "PROBE").exists()
    assert probe("same", "same")
    assert [path.name for path in tmp_path.iterdir()] == ["probe"]


@pytest.mark.parametrize(
    "key",
    [
        "CON",
        "nul.txt",
        "LPT1",
        "data",
        ".lock",
        "-rf",
        "~",
        "a:b",
        "a\\b",
        "x\ny",
        " ",
        "...",
        "a" * 255,
        "b/" * 511 + "c",
    ],
)
def test_names_that_are_reserved_elsewhere_are_files_here(tmp_path, key):
    from trainyard.tasks.artifacts.datasets import dataset_path
    from trainyard.tasks.caching.stage import StageContext
    from trainyard.tasks.specs.datastore import Datastore
    from trainyard.tasks.staging.dataset import stage_references

    bucket = uuid.uuid4().hex
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/{bucket}/{key}", b"alpha")
    context = StageContext(store_url=str(tmp_path / "store"), home=tmp_path / "home")
    [dataset] = stage_references([Datastore(url=f"memory://{bucket}").as_mount()], context).datasets
    assert (dataset_path(context.home, dataset) / key).read_bytes() == b"alpha"
