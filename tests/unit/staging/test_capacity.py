import errno
import os
import sqlite3

import pytest

from trainyard.tasks.errors import DiskFullError, PermanentError
from trainyard.tasks.staging.capacity import disk_errors_translated

FULL, UNWRITABLE = "is full", "cannot be written to"


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (OSError(errno.ENOSPC, "x"), DiskFullError, FULL),
        (OSError(errno.EDQUOT, "x"), DiskFullError, FULL),
        (sqlite3.OperationalError("database or disk is full"), DiskFullError, FULL),
        (OSError(errno.EIO, "x"), PermanentError, UNWRITABLE),
        (OSError(errno.EROFS, "x"), PermanentError, UNWRITABLE),
        (OSError(errno.EUCLEAN, "x"), PermanentError, UNWRITABLE),
        (sqlite3.OperationalError("disk I/O error"), PermanentError, UNWRITABLE),
        (sqlite3.OperationalError("attempt to write a readonly database"), PermanentError, UNWRITABLE),
        (sqlite3.OperationalError("unable to open database file"), PermanentError, UNWRITABLE),
    ],
    ids=str,
)
def test_what_a_disk_says_is_told_with_its_name(tmp_path, error, expected, words):
    with pytest.raises(expected, match=f"The disk of {tmp_path} {words}") as caught, disk_errors_translated(tmp_path):
        raise error
    assert type(caught.value) is expected
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, os.strerror(errno.ENOENT)), sqlite3.OperationalError("locked")]
)
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, disk_errors_translated(tmp_path):
        raise error
    assert caught.value is error
