"""What a Prefect block says reaches the staging, and whoever made a wrong one."""

import os
import subprocess
import sys

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate
from pydantic import ValidationError

from tests.unit.staging.staged import staged_path
from trainyard import Hosts, PyTorch, errors
from trainyard.tasks.blocks import DatastoreBlock, HostsBlock, load_datastore, load_hosts
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.datastore import DataReference, Datastore
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


def test_a_block_is_taken_where_a_datastore_is(prefect_server, tmp_path):
    """The page of a block in the UI once said to load it, and many have it so."""
    DatastoreBlock(url="s3://training-data").save("as-data", overwrite=True)
    block, plain = DatastoreBlock.load("as-data"), Datastore(url="s3://training-data", block="as-data")
    (tmp_path / "train.py").write_text("")
    job = {"source_directory": str(tmp_path), "entry_script": "train.py"}
    estimator = PyTorch(**job, script_params={"--a": block}, inputs={"B": block}, resume_from=block)
    assert estimator.script_params == {"--a": plain}
    assert (estimator.inputs, estimator.resume_from) == ({"B": plain}, plain)
    assert DataReference(datastore=block, key="x") == plain.path("x")
    assert PyTorch.model_validate_json(estimator.model_dump_json()) == estimator
    with pytest.raises(ValidationError, match="a Prefect block that was not saved"):
        PyTorch(**job, script_params={"--a": DatastoreBlock(url="s3://training-data")})


@pytest.mark.parametrize(
    ("block", "wrong", "field"),
    [
        (DatastoreBlock(url="s3://b"), {"url": ""}, "url"),
        (HostsBlock(target=Hosts(hosts=["one"])), {"target": {"hosts": []}}, "target.hosts"),
    ],
)
def test_a_block_that_holds_something_wrong_is_bad_input(prefect_server, block, wrong, field):
    """Prefect's server keeps values that the block itself would refuse."""
    saved = block.save("wrong", overwrite=True)
    with get_client(sync_client=True) as client:
        client.update_block_document(saved, BlockDocumentUpdate(data=wrong, merge_existing_data=False))
    load = load_datastore if isinstance(block, DatastoreBlock) else load_hosts
    said = f"'wrong' of type '{block._block_type_name}' is wrong: {field}: .*; correct it in the UI"
    with pytest.raises(InvalidInputError, match=said):
        load("wrong")


def test_the_server_that_has_no_such_block_is_named(prefect_server):
    with pytest.raises(errors.InvalidInputError, match=f"on the server {prefect_server}: create it"):
        Datastore.load("nobodys")


def test_a_temporary_server_is_named_as_what_it_is(prefect_home, tmp_path):
    """Where no server is configured, Prefect starts one, which knows nothing of what another one has."""
    env = {**os.environ, "PREFECT_HOME": str(prefect_home(tmp_path / "prefect"))}
    env.pop("PREFECT_API_URL", None)
    code = "from trainyard import Datastore; Datastore.load('training-data')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert "on Prefect's temporary server, which was asked because PREFECT_API_URL is not set" in done.stderr
