"""What a datastore's Prefect block says reaches the staging."""

import os

import pytest

from tests.unit.staging.staged import staged_path
from trainyard.tasks.blocks import DatastoreBlock
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references


def test_a_block_says_how_local_files_are_staged(prefect_server, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("alpha")
    for link_mode in ("reflink", "hardlink"):
        DatastoreBlock(url=str(tmp_path / "data"), link_mode=link_mode).save(f"local-{link_mode}", overwrite=True)
        context = StageContext(store_url=str(tmp_path / "store"), home=tmp_path / link_mode)
        product = stage_references([Datastore.load(f"local-{link_mode}").as_mount()], context)
        one_file = os.path.samefile(staged_path(context, product) / "a.txt", tmp_path / "data" / "a.txt")
        assert not one_file if link_mode == "reflink" else one_file


def test_a_block_made_of_the_environment_opens_the_data_without_it(prefect_server, s3_server, tmp_path, monkeypatch):
    bucket = s3_server.create_bucket("from-environment")
    (bucket / "a.txt").write_text("alpha")
    for name, value in {**s3_server.environment(), "AWS_ENDPOINT_URL": s3_server.endpoint_url}.items():
        monkeypatch.setenv(name, value)
    DatastoreBlock.from_environment("s3://from-environment").save("from-environment", overwrite=True)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    datastore = Datastore.load("from-environment")
    assert s3_server.secret_access_key not in datastore.model_dump_json()
    context = StageContext(store_url=str(tmp_path / "store"), home=tmp_path / "home")
    product = stage_references([datastore.as_mount()], context)
    assert (staged_path(context, product) / "a.txt").read_text() == "alpha"


@pytest.mark.parametrize("url", ["/data", "s3://b"])
def test_an_environment_that_says_too_little_makes_no_block(url, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    with pytest.raises(InvalidInputError, match=r"is not on S3|AWS_SECRET_ACCESS_KEY"):
        DatastoreBlock.from_environment(url)
