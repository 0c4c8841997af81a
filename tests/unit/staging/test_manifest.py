from hypothesis import given
from hypothesis import strategies as st

from trainyard.tasks.artifacts.digests import digest_bytes
from trainyard.tasks.staging.manifest import DatasetManifest, ManifestEntry

CONTENTS = st.dictionaries(st.text(min_size=1, max_size=8), st.binary(max_size=8), min_size=1, max_size=5)


def manifest(contents, version="v", uri="s3://b", single_object=False):
    entries = (
        ManifestEntry(key=key, num_bytes=len(data), sha256=digest_bytes(data), version=version)
        for key, data in sorted(contents.items())
    )
    return DatasetManifest(uri=uri, single_object=single_object, objects=tuple(entries))


@given(CONTENTS)
def test_the_identity_knows_neither_address_nor_version(contents):
    there, here = manifest(contents), manifest(contents, version="etag", uri="file:///elsewhere")
    assert there.sha256 == here.sha256
    assert there.to_bytes() != here.to_bytes()


@given(CONTENTS, CONTENTS)
def test_different_contents_are_different_datasets(one, other):
    assert (manifest(one).sha256 == manifest(other).sha256) == (one == other)


def test_a_file_and_a_directory_with_one_file_are_different_datasets():
    contents = {"a.txt": b"a"}
    assert manifest(contents).sha256 != manifest(contents, single_object=True).sha256


@given(CONTENTS)
def test_a_manifest_survives_its_json(contents):
    one = manifest(contents)
    assert DatasetManifest.model_validate_json(one.to_bytes()) == one
    assert one.num_bytes == sum(map(len, contents.values()))
