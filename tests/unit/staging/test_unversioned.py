"""A zip archive's listing gives no times for its members in every version of fsspec; then nothing is taken as known."""

import zipfile

from trainyard import Datastore
from trainyard.tasks.staging.listing import list_reference


def test_a_change_of_the_same_size_inside_an_archive_is_seen(tmp_path):
    def listing(content):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("x.txt", content)
        return list_reference(Datastore(url=f"zip://x.txt::{tmp_path}/a.zip").as_mount())

    assert listing("one").fingerprint != listing("two").fingerprint
