"""What a URL opens: archives, chains, keys with colons, and what is said of those that cannot be opened."""

import zipfile

import pytest

from tests.unit.staging.staged import contents, staged_path
from trainyard.tasks.artifacts.filesystems import open_filesystem
from trainyard.tasks.artifacts.storage_errors import translated
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import InvalidInputError, StorageAccessError, StorageNotFoundError, StorageUnavailableError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references
from trainyard.tasks.staging.probe import probe_reference


@pytest.fixture
def context(tmp_path):
    return StageContext(store_url=str(tmp_path / "store"), home=tmp_path / "home")


@pytest.fixture
def archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as zipped:
        for name, text in {"a.txt": "alpha", "sub/b.txt": "beta"}.items():
            zipped.writestr(name, text)
    return tmp_path / "data.zip"


ALL, SUB = {"a.txt": b"alpha", "sub/b.txt": b"beta"}, {"b.txt": b"beta"}


@pytest.mark.parametrize(
    ("url", "key", "expected"),
    [
        ("zip://::{}", "", ALL),
        ("zip://::file://{}", "", ALL),
        ("zip://::{}", "**/*.txt", ALL),
        ("zip://::{}", "sub/", SUB),
        ("zip://sub::{}", "", SUB),
        ("zip://sub::simplecache::file://{}", "", SUB),
    ],
)
def test_what_is_in_an_archive(archive, context, url, key, expected):
    reference = Datastore(url=url.format(archive)).path(key)
    probe_reference(reference)
    assert contents(staged_path(context, stage_references([reference], context))) == expected


def test_two_colons_are_a_part_of_a_name_where_nothing_is_chained(tmp_path, context):
    (tmp_path / "a::b").mkdir()
    (tmp_path / "a::b" / "x.txt").write_text("x")
    for url in (str(tmp_path / "a::b"), (tmp_path / "a::b").as_uri().replace("%3A", ":")):
        staged = staged_path(context, stage_references([Datastore(url=url).as_mount()], context))
        assert contents(staged) == {"x.txt": b"x"}
    assert open_filesystem("s3://bucket/a::b", {"key": "x", "secret": "y"})[1] == "bucket/a::b"


BAD = {
    "an option of another name": ("s3://b", {"aws_access_key_id": "x", "secret": "SECRET"}),
    "an option of another type": ("s3://b", {"key": "x", "secret": "SECRET", "client_kwargs": "SECRET"}),
    "no archive": ("zip://::{directory}/text", {}),
    "a directory in place of an archive": ("zip://::{directory}", {}),
}


@pytest.mark.parametrize(("url", "options"), BAD.values(), ids=BAD)
def test_what_cannot_be_opened_is_bad_input(tmp_path, url, options):
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(InvalidInputError, match="cannot be opened") as caught:
        open_filesystem(url.format(directory=tmp_path), options)
    assert "SECRET" not in str(caught.value)


def test_a_name_that_is_too_long_or_never_ends_is_bad_input(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("loop", "x" * 300):
        with pytest.raises(InvalidInputError, match="check the path"):
            probe_reference(Datastore(url=str(tmp_path)).path(name))


def test_a_pattern_in_the_url_is_told_from_a_missing_object(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(StorageNotFoundError, match=r"A pattern is the key of a reference.*\.path\('\*\.png'\)"):
        probe_reference(Datastore(url=f"{tmp_path}/*.png").as_mount())
    probe_reference(Datastore(url=str(tmp_path)).path("*.png"))


class BackendsError(Exception):
    """As botocore's: told by its name and module, and by the server's answer."""

    def __init__(self, text="", response=None):
        super().__init__(text)
        self.response = response


def backends(name, text="", **error):
    kind = type(name, (BackendsError,), {"__module__": "botocore.exceptions"})
    return kind(text, {"Error": error, "ResponseMetadata": {"HTTPStatusCode": 400}} if error else None)


@pytest.mark.parametrize(
    ("raised", "remedy"),
    [
        (backends("ProfileNotFound"), "name a profile"),
        (backends("SSOTokenLoadError"), "aws sso login"),
        (backends("CredentialRetrievalError"), "credential_process"),
        (backends("ConfigParseError"), "correct ~/.aws/config"),
        (backends("HTTPClientError", "... Potential header injection attack."), "holds a line break"),
        (backends("ClientError", Code="PermanentRedirect", Region="eu-west-1"), 'set region="eu-west-1"'),
        (
            backends("ClientError", "'a' is wrong; expecting 'eu-central-1'", Code="AuthorizationHeaderMalformed"),
            'set region="eu-central-1"',
        ),
        (backends("ClientError", Code="IllegalLocationConstraintException"), "set the bucket's region"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_problem_with_credentials_and_regions_has_its_remedy(raised, remedy):
    with pytest.raises(StorageAccessError) as caught, translated("s3://bucket/key"):
        raise raised
    assert remedy in str(caught.value)


@pytest.mark.parametrize("endpoint_url", ["http://127.0.0.1:abc", "http://127.0.0.1:99999"])
def test_an_endpoint_with_an_impossible_port_is_refused(endpoint_url):
    with pytest.raises(InvalidInputError, match="is not a web address"):
        probe_reference(Datastore(url="s3://b", endpoint_url=endpoint_url).as_mount())


def test_a_message_that_is_cut_within_a_url_shows_no_part_of_its_credentials():
    with pytest.raises(StorageUnavailableError) as caught, translated("s3://bucket/key"):
        raise OSError(f"{'x' * 160} https://user:hunter2secret-and-more-of-it@host/path")
    assert "hunter2" not in str(caught.value)
