"""What is refused of a person's own directory, before anything of it is staged."""

import os

import pytest

from trainyard.tasks.errors import InvalidInputError, StorageNotFoundError, UnsafeObjectKeyError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references
from trainyard.tasks.staging.listing import list_reference
from trainyard.tasks.staging.probe import probe_reference


def test_nothing_there_is_an_error_of_its_own(tmp_path, context):
    with pytest.raises(StorageNotFoundError, match="no-such-directory"):
        stage_references([Datastore(url=str(tmp_path / "no-such-directory")).as_mount()], context)


@pytest.mark.parametrize("look", [probe_reference, list_reference])
def test_an_empty_directory_is_bad_input(tmp_path, look):
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    with pytest.raises(InvalidInputError, match="is empty"):
        look(Datastore(url=str(tmp_path / "empty")).as_mount())


def test_a_tree_without_end_is_refused(source):
    (source / "sub" / "loop").symlink_to(source)
    with pytest.raises(InvalidInputError, match="loop"):
        list_reference(Datastore(url=str(source)).as_mount())


def test_a_pipe_is_refused_not_read(source):
    os.mkfifo(source / "pipe")
    with pytest.raises(InvalidInputError, match="pipe"):
        list_reference(Datastore(url=str(source)).as_mount())


def test_a_name_that_is_no_text_is_refused(source):
    with open(os.fsencode(source) + b"/\xff.txt", "wb"):
        pass
    with pytest.raises(UnsafeObjectKeyError, match="Unicode"):
        list_reference(Datastore(url=str(source)).as_mount())


def test_probe_accepts_what_can_be_staged(source):
    probe_reference(Datastore(url=str(source)).as_mount())
    probe_reference(Datastore(url=source.as_uri()).path("a.txt"))
