"""What reaches the server: who asks, how, and for what."""

import socket

import pytest

from tests.integration.staging_faults.objects import put_small_objects, reference
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references


def test_what_reads_is_what_was_asked_for(server, bucket_name, context, transport):
    put_small_objects(server, bucket_name, 20)
    server.user_agents.clear()
    stage_references([reference(server, bucket_name)], context)
    assert any("object_store" in agent for agent in server.user_agents) == (transport == "obstore")


def test_credentials_region_and_session_token_reach_the_server(server, bucket_name, context, monkeypatch):
    put_small_objects(server, bucket_name, 5)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-the-session")
    server.authorizations.clear()
    server.session_tokens.clear()
    store = Datastore(url=f"s3://{bucket_name}", endpoint_url=server.endpoint_url, region="eu-central-1")
    stage_references([store.path("train")], context)
    assert server.session_tokens == {"token-of-the-session"}
    assert all("fault-server-key/" in value and "/eu-central-1/s3/" in value for value in server.authorizations)


def test_a_profile_is_asked_for_its_credentials(server, bucket_name, context, monkeypatch, tmp_path):
    put_small_objects(server, bucket_name, 5)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    lines = ["[training]", "aws_access_key_id = key-of-the-profile", "aws_secret_access_key = not-told-to-anybody"]
    (tmp_path / "credentials").write_text("\n".join(lines))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    server.authorizations.clear()
    store = Datastore(url=f"s3://{bucket_name}", endpoint_url=server.endpoint_url, profile="training")
    stage_references([store.path("train")], context)
    assert all("Credential=key-of-the-profile/" in value for value in server.authorizations)


def test_anonymous_requests_are_not_signed(server, bucket_name, context):
    put_small_objects(server, bucket_name, 5)
    server.authorizations.clear()
    store = Datastore(url=f"s3://{bucket_name}", endpoint_url=server.endpoint_url, anonymous=True)
    stage_references([store.path("train")], context)
    assert server.authorizations == {""}


def test_virtual_addressing_names_the_bucket_in_the_host(server, bucket_name, context):
    put_small_objects(server, bucket_name, 5)
    server.hosts.clear()
    endpoint_url = server.endpoint_url.replace("127.0.0.1", "localhost")  # as are all names below it (RFC 6761)
    try:
        socket.getaddrinfo(f"{bucket_name}.localhost", None)
    except OSError:
        pytest.skip("this machine does not resolve names below localhost")
    store = Datastore(url=f"s3://{bucket_name}", endpoint_url=endpoint_url, addressing="virtual")
    stage_references([store.path("train")], context)
    assert {host.partition(":")[0] for host in server.hosts} == {f"{bucket_name}.localhost"}


def test_a_pattern_reads_only_what_it_matches(server, bucket_name, context):
    put_small_objects(server, bucket_name, 60)
    stage_references([reference(server, bucket_name, "train/0*/000?1.txt")], context)
    assert sorted(server.reads) == ["train/01/00001.txt", "train/01/00021.txt", "train/01/00041.txt"]
