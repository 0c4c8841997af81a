import subprocess
import sys

import pytest

from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.access import locate, storage_options


def test_endpoint_and_anonymity_become_options_of_s3fs():
    datastore = Datastore(url="s3://b", endpoint_url="http://127.0.0.1:9", anonymous=True)
    assert storage_options(datastore) == {"client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}, "anon": True}
    assert storage_options(Datastore(url="s3://b")) == {}


def test_region_profile_and_addressing_become_options_of_s3fs():
    datastore = Datastore(url="s3://b", region="eu-central-1", profile="training", addressing="virtual")
    assert storage_options(datastore) == {
        "client_kwargs": {"region_name": "eu-central-1"},
        "profile": "training",
        "config_kwargs": {"s3": {"addressing_style": "virtual"}},
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"endpoint_url": "http://127.0.0.1:9"},
        {"anonymous": True},
        {"region": "eu-central-1"},
        {"profile": "training"},
        {"addressing": "path"},
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(settings):
    with pytest.raises(InvalidInputError, match=next(iter(settings))):
        storage_options(Datastore(url="file:///data", **settings))


@pytest.mark.parametrize("url", ["s3://bucket/data", "memory://data", "zip://data::/here.zip"])
def test_links_to_what_is_not_here_are_refused(url):
    with pytest.raises(InvalidInputError, match="link_mode is a setting of local files"):
        storage_options(Datastore(url=url, link_mode="hardlink"))


@pytest.mark.parametrize("endpoint_url", ["127.0.0.1:9000", "minio", "ftp://x", "http://"])
def test_an_endpoint_that_is_no_address_is_refused(endpoint_url):
    with pytest.raises(InvalidInputError, match="http://127"):
        storage_options(Datastore(url="s3://b", endpoint_url=endpoint_url))


def test_an_unknown_scheme_is_refused():
    with pytest.raises(InvalidInputError, match="unknown scheme 's4'"):
        locate(Datastore(url="s4://b").as_mount())


def test_a_key_is_appended_and_never_interpreted(tmp_path):
    reference = Datastore(url=str(tmp_path)).path("a::b/*.txt/")
    assert locate(reference).local_path == tmp_path / "a::b/*.txt"


def test_staging_without_a_block_does_not_import_prefect():
    program = "import sys; import trainyard.tasks.staging.dataset, trainyard.tasks.staging.probe; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "prefect" not in done.stdout.split()
