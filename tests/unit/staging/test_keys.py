import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.tasks.errors import UnsafeObjectKeyError
from trainyard.tasks.staging.keys import check_keys, relative_path

PARTS = st.sampled_from(["", ".", "..", "a", "A", "b.txt", "\\", "~", "\0", "é", "\ud800", " ", "x" * 300, "-rf"])
KEYS = st.one_of(st.text(max_size=40), st.lists(PARTS, min_size=1, max_size=6).map("/".join))


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


@given(st.sets(KEYS, max_size=6))
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
