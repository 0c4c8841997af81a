"""Credentials in URLs are refused, and hidden wherever a URL is shown."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from trainyard import Datastore, cli
from trainyard.cli.output import BAD_INPUT
from trainyard.flows.answers import Answer, Failure, _keep
from trainyard.flows.preflight import _store_problems
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.blocks import DatastoreBlock
from trainyard.tasks.credentials import credentials_problem, endpoint_problem, redacted, redacted_url
from trainyard.tasks.errors import InvalidInputError, PipelineError
from trainyard.tasks.specs.datastore import DataReference
from trainyard.tasks.staging.probe import probe_reference

WITH_CREDENTIALS = [
    "s3://KEY:SECRET@b/x",
    "s3://KEY:SEC/RET@b/x",
    "s3://SECRET@b/x",
    "s3://K%3ASECRET@b/x",
    "s3://KEY:SECRET",
    "simplecache::s3://KEY:SECRET@b/x",
    "zip://a.npz::s3://KEY:SEC/RET@b/x.zip",
    "filecache::https://u:SECRET@h/x",
    "https://SECRET@h/x",
    "https://u:SEC/RET@h:8080/x",
    "ftp://u:SECRET@h/x",
    "ftp://u%3ASECRET@h/x",
    "ftp://u:SEC?RET@h/x",
    "file://u:SECRET@h/x",
    "s9://KEY:SECRET@b",
    "s3://KEY:SEC RET@b/SECRET",
    's3://KEY:SEC"RET@b/x',
    "https://h/x?sig=SECRET",
    "https://h/x?SECRET",
    "https://h/x?download=1&se=SECRET",
    "https://h/x#access_token=SECRET",
    "https://h/x?X-Amz-Signature=SECRET",
    "s3://b/x?X-Amz-Signature=SECRET",
    "abfs://container@account.dfs.core.windows.net/x?sv=1&sig=SECRET",
]
WITHOUT = [
    "s3://bucket/dir@v1/",
    "s3://bucket/a:b@c?d",
    "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/mine/dir@v1",
    "simplecache::s3://bucket/dir@v1",
    "zip://digits.npz::s3://bucket/dir@v1/x.zip",
    "zip://x::/home/me@here/f.zip",
    "abfs://container@account.dfs.core.windows.net/x",
    "sftp://me@host:22/x@1",
    "https://h:9000/x@v1",
    "https://h/x.zip?download=1",
    "http://[::1]:9000/x@v1",
    "memory://a/b@c",
    "file:///data/me@here:x/y?token=1",
    "/data/me@here:x/y?token=1",
    "gs://bucket/x?y=1",
]
LETTERS = st.sampled_from("abcXYZ0189-._~!$&'()*+,;=/%")
SECRETS = st.text(LETTERS, max_size=20).map(lambda text: f"Q{text}Q")
SCHEMES = st.sampled_from(["s3", "https", "http", "ftp", "sftp", "gs", "abfs"])
BEFORE = st.sampled_from(["", "'", "see ", "s3://bucket/x, then ", "s3://b,", "url=", "simplecache::", "(", "a@b "])
AFTER = st.sampled_from(["", "'", ", ", ",s3://b", ").", " me@here"])


@pytest.mark.parametrize("url", WITH_CREDENTIALS)
def test_a_url_with_credentials_is_refused_everywhere_and_never_shown(url, home):
    for refused in (
        lambda: Datastore(url=url),
        lambda: DataReference(datastore=url),
        lambda: DatastoreBlock(url=url),
        lambda: ArtifactStore(url),
    ):
        with pytest.raises((ValidationError, InvalidInputError), match=r"holds a password|has a query") as raised:
            refused()
        assert "SEC" not in str(raised.value)
    (problem,) = _store_problems(url)
    assert "SEC" not in problem
    assert "SEC" not in redacted_url(url) and "RET" not in redacted_url(url)
    if not set(' "') & set(url):  # no URL has them, so that one in a text ends there
        assert "SEC" not in redacted(f"Nothing found at {url!r}: check ({url}).")


@pytest.mark.parametrize("url", WITHOUT)
def test_a_url_without_credentials_is_as_it_was(url):
    assert Datastore(url=url).url == url
    assert redacted(f"Nothing found at {url!r}: check ({url}).") == f"Nothing found at {url!r}: check ({url})."
    assert redacted_url(url) == url


@pytest.mark.parametrize(
    "address",
    ["https://u:SECRET@minio:9000", "https://SECRET@minio", "http://h/?token=SECRET", "http://h/#SECRET", "http://h?"],
)
def test_an_endpoint_has_neither_credentials_nor_a_query(address):
    assert endpoint_problem(address)
    for made in (Datastore, DatastoreBlock):
        with pytest.raises(ValidationError) as raised:
            made(url="s3://b", endpoint_url=address)
        assert "SECRET" not in str(raised.value)
    assert Datastore(url="s3://b", endpoint_url="http://[::1]:9000/s3").endpoint_url


def test_a_key_of_s3_may_hold_anything_and_one_of_the_web_no_query():
    key = "a@b:c/x?sig=1&token=2"
    assert Datastore(url="s3://b").path(key).uri == f"s3://b/{key}"
    web = Datastore(url="https://h/data")
    assert web.path("img?.png").key == "img?.png"
    with pytest.raises(ValidationError, match="storage options") as raised:
        web.path("x.bin?sig=SECRET")
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("command", ["models list", "models promote x", "explain", "gc --max-size=1"])
def test_every_command_refuses_a_store_with_credentials_without_showing_them(command, home, monkeypatch, capsys):
    monkeypatch.setenv("TRAINYARD_STORE", "s3://KEY:SECRETPW@b/x")
    done = CliRunner().invoke(cli.app, command.split())
    assert (done.exit_code, "SECRETPW" in done.output + capsys.readouterr().err) == (BAD_INPUT, False)
    assert "holds a password" in done.output


def test_a_pipeline_file_with_credentials_in_its_store_is_refused(tmp_path):
    from trainyard.flows.pipeline_file import load_pipeline_file

    (tmp_path / "train.py").touch()
    (tmp_path / "p.yaml").write_text(
        "estimator: {source_directory: ., entry_script: train.py}\nstore: s3://K:SECRET@b\n"
    )
    with pytest.raises(InvalidInputError, match="store: holds a password") as raised:
        load_pipeline_file(tmp_path / "p.yaml")
    assert "SECRET" not in str(raised.value)


def test_what_a_run_answers_and_logs_hides_credentials(monkeypatch, caplog):
    assert "SECRET" not in Failure.of(OSError("no https://u:SECRET@h/x")).message
    monkeypatch.setattr("trainyard.flows.answers.flow_run", type("Run", (), {"id": "1"}))
    with caplog.at_level(logging.WARNING):
        _keep("s3://KEY:SECRET@b", Answer())
    assert "does not keep" in caplog.text and "SECRET" not in caplog.text


def test_errors_hide_credentials_in_message_and_details():
    error = PipelineError("at https://u:SECRET@h/x", uri="s3://K:SECRET@b", problems=("ftp://u:SECRET@h",), size=3)
    assert "SECRET" not in repr(error) + repr(vars(error))
    assert error.size == 3


def test_names_of_variables_are_no_credentials():
    text = "write https://${INDEX_USER}:${INDEX_TOKEN}@host, for example"
    assert redacted(text) == text


@st.composite
def urls_with_credentials(draw, secrets=SECRETS):
    scheme, secret = draw(SCHEMES), draw(secrets)
    if draw(st.booleans()):
        return f"{scheme}://user:{secret}@host/x@1", secret
    name = draw(st.sampled_from(["sig", "X-Amz-Signature", "access_token", "password", "api_key"]))
    secret = secret.replace("&", "").replace(";", "")
    return f"{scheme}://host/x?{name}={secret}", secret


@given(urls_with_credentials(), BEFORE, AFTER)
def test_what_is_refused_is_hidden_in_any_text(found, before, after):
    url, secret = found
    assert credentials_problem(url)
    shown = redacted(f"{before}{url}{after}")
    assert secret not in shown
    assert redacted(shown) == shown
    assert secret not in redacted_url(url)


@given(st.text(st.characters(exclude_characters=":"), max_size=60))
def test_a_text_without_a_url_is_as_it_was(text):
    assert redacted(text) == text


@given(SCHEMES, st.text(LETTERS | st.sampled_from("@:"), max_size=30))
def test_keys_of_a_bucket_hold_what_they_like(scheme, key):
    url = f"{scheme}://bucket/{key}"
    if "://" not in key and "::" not in key:
        assert credentials_problem(url) is None
        assert redacted(url) == url


def test_an_endpoint_of_the_environment_is_refused_before_it_is_part_of_a_key(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://u:SECRET@127.0.0.1:9")
    with pytest.raises(InvalidInputError, match="endpoint URL") as raised:
        probe_reference(Datastore(url="s3://b").as_mount())
    assert "SECRET" not in str(raised.value)
