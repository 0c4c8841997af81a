"""Data on a web server: what it lists, what it refuses, and what is shown of the secrets that it is asked with."""

import traceback
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from socket import socket
from threading import Thread

import pytest

from tests.unit.staging.staged import contents, staged_path
from trainyard.tasks.blocks import DatastoreBlock
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import (
    InvalidInputError,
    PipelineError,
    StorageAccessError,
    StorageNotFoundError,
    StorageUnavailableError,
)
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references
from trainyard.tasks.staging.probe import probe_reference

SECRET = "S1GSECRETxyz"


class _Handler(SimpleHTTPRequestHandler):
    """Files of a directory, as any web server serves them.

    ``/says/HEAD/GET`` answers with these two statuses, ``/portal`` and all below it with a page to log in at.
    """

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        if self.path.startswith("/says/"):
            self._answer(0)
        else:
            super().do_HEAD()

    def do_GET(self):
        if self.path.startswith("/unsized"):
            self._send_chunked(b"bytes")
        elif self.path.startswith("/says/"):
            self._answer(1)
        else:
            super().do_GET()

    def _answer(self, number):
        status = int(self.path.partition("?")[0].split("/")[2 + number])
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_chunked(self, data):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))

    def send_head(self):
        if self.path.startswith("/unsized"):
            self.send_response(200)
            self.end_headers()
            return None
        if self.path.startswith("/portal"):
            page = b"<!DOCTYPE html><html>Log in</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            return BytesIO(page)
        return super().send_head()

    def log_message(self, *args):
        pass


@pytest.fixture
def web(tmp_path):
    """Address of a web server with a folder of data."""
    folder = tmp_path / "site"
    for name, text in {"data/a.txt": "alpha", "data/sub/b.txt": "beta", "data/sub/c.csv": "1,2"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10)


@pytest.fixture
def context(tmp_path):
    return StageContext(store_url=str(tmp_path / "store"), home=tmp_path / "home")


@pytest.mark.parametrize(
    ("place", "key", "names"),
    [
        ("/data", "", {"a.txt", "sub/b.txt", "sub/c.csv"}),
        ("/data/", "", {"a.txt", "sub/b.txt", "sub/c.csv"}),
        ("/data", "sub/", {"b.txt", "c.csv"}),
        ("/data", "**/*.txt", {"a.txt", "sub/b.txt"}),
        ("", "data", {"a.txt", "sub/b.txt", "sub/c.csv"}),
    ],
)
def test_folders_and_patterns_are_what_the_pages_of_a_server_link_to(web, context, place, key, names):
    reference = Datastore(url=f"{web}{place}").path(key)
    probe_reference(reference)
    assert contents(staged_path(context, stage_references([reference], context))).keys() == names


def test_one_object(web, context):
    staged = staged_path(context, stage_references([Datastore(url=web).path("data/sub/b.txt")], context))
    assert (staged.name, staged.read_text()) == ("b.txt", "beta")


def test_an_object_of_unknown_size_is_refused_in_words(web):
    with pytest.raises(InvalidInputError, match=r"does not tell the size of .*/unsized"):
        probe_reference(Datastore(url=f"{web}/unsized").as_mount())


STATUSES = {
    "401/401": StorageAccessError,
    "403/403": StorageAccessError,
    "200/403": StorageAccessError,
    "404/404": StorageNotFoundError,
    "302/302": InvalidInputError,
    "429/429": StorageUnavailableError,
    "503/503": StorageUnavailableError,
}


@pytest.mark.parametrize(("statuses", "expected"), STATUSES.items(), ids=STATUSES)
def test_every_refusal_is_an_error_of_its_own(web, context, statuses, expected):
    with pytest.raises(expected) as caught:
        stage_references([Datastore(url=f"{web}/says/{statuses}").as_mount()], context)
    assert caught.type is expected


@pytest.fixture
def credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.mark.parametrize("url", ["s3://b", "s3://b/x"])
def test_a_page_to_log_in_at_is_no_s3_server(web, credentials, url):
    with pytest.raises(InvalidInputError, match="is no S3 server: check the endpoint URL"):
        probe_reference(Datastore(url=url, endpoint_url=f"{web}/portal").as_mount())


@pytest.mark.parametrize(("url", "words"), [("s3://b", "does not exist"), ("s3://b/x", "check the key")])
def test_a_server_that_knows_nothing_of_the_bucket_says_nothing_about_it(web, credentials, url, words):
    with pytest.raises(StorageNotFoundError, match=rf"{words}.*the endpoint URL") as caught:
        probe_reference(Datastore(url=url, endpoint_url=web).as_mount())
    assert "exists" not in str(caught.value)


def test_a_server_that_is_not_there_may_come_back():
    with closing(socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(StorageUnavailableError, match="did not answer"):
        probe_reference(Datastore(url=f"http://127.0.0.1:{port}/data").as_mount())


@pytest.mark.parametrize("statuses", ["403/403", "200/403", "503/503", "404/404"])
def test_no_secret_of_a_block_is_in_an_error_or_in_what_it_comes_from(prefect_server, web, context, statuses):
    DatastoreBlock(url=web, storage_options={"params": {"sig": SECRET}}).save("signed", overwrite=True)
    with pytest.raises(PipelineError) as caught:
        stage_references([Datastore.load("signed").path(f"says/{statuses}")], context)
    told = "".join(traceback.format_exception(caught.value))
    assert f"/says/{statuses}" in told and SECRET not in told


def test_the_secrets_of_a_block_go_to_its_own_place_alone(prefect_server, web, context):
    DatastoreBlock(url=f"{web}/data", storage_options={"headers": {"Authorization": SECRET}}).save(
        "own", overwrite=True
    )
    probe_reference(Datastore(url=f"{web}/data/sub", block="own").as_mount())
    for url in (web, f"{web}/data2", "http://127.0.0.1:9/data", "/data"):
        with pytest.raises(InvalidInputError, match=f"block 'own' is for {web}/data, and the datastore is {url}"):
            probe_reference(Datastore(url=url, block="own").as_mount())
    DatastoreBlock(url="s3://b", endpoint_url=web, storage_options={"key": SECRET}).save("own-s3", overwrite=True)
    with pytest.raises(InvalidInputError, match=f"is for the endpoint {web}, and"):
        probe_reference(Datastore(url="s3://b", block="own-s3", endpoint_url="http://127.0.0.1:9").as_mount())
