"""Which data a training depends on, and which it is given."""

from pathlib import Path

import pytest

from trainyard import Datastore, PyTorch
from trainyard.tasks.artifacts.datasets import dataset_directory
from trainyard.tasks.artifacts.products import StagedData, StagedDataset
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.training.data_views import make_views
from trainyard.tasks.training.launch import launch_spec
from trainyard.tasks.training.launchers.choose import build_launch_command
from trainyard.tasks.training.run_directory import RunDirectory
from trainyard.tasks.training.task import train_components


def reference(digit):
    return ArtifactRef(uri="memory://x", sha256=digit * 64, num_bytes=0)


def staged(uri, digit):
    return StagedDataset(
        uri=uri, sha256=digit * 64, single_object=False, num_objects=1, num_bytes=1, manifest=reference("0")
    )


def estimator(**values):
    return PyTorch(source_directory=".", entry_script="train.py", **values)


@pytest.mark.parametrize("variable", ["source", "DATA"])
def test_the_source_decides_whatever_the_inputs_are_called(variable):
    data = StagedData(datasets=(staged("/data", "c"),))
    job = estimator(inputs={variable: Datastore(url="/data")})
    keys = [StageKey("train", train_components(job, reference(digit), data)).sha256 for digit in "ab"]
    assert keys[0] != keys[1]


def test_one_address_on_two_servers_is_two_datasets(tmp_path):
    """``s3://bucket/x`` says nothing without the endpoint."""
    servers = [Datastore(url="s3://bucket/x", endpoint_url=f"http://server{n}") for n in (1, 2)]
    job = estimator(script_params={"--a": servers[0], "--b": servers[1]}, inputs={"A": servers[0]})
    data = StagedData(datasets=(staged("s3://bucket/x", "c"), staged("s3://bucket/x", "d")))
    components = train_components(job, reference("a"), data)
    assert [components[f"input:argument[--{name}]"] for name in "ab"] == ["c" * 64, "d" * 64]

    folders = [dataset_directory(tmp_path, digit * 64) for digit in "cd"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "name").write_text(folder.parent.name[0])
    run = RunDirectory("id", tmp_path / "run", tmp_path / "work", tmp_path / "checkpoints")
    views = make_views(job.references, data, run, tmp_path)
    context = StageContext(store_url="memory://store", home=tmp_path)
    command = build_launch_command(launch_spec(job, run, views.paths, context))
    assert [command.argv[-4], command.argv[-2]] == ["--a", "--b"]
    seen = [Path(command.argv[n], "name").read_text() for n in (-3, -1)]
    assert [*seen, Path(command.env["A"], "name").read_text()] == ["c", "d", "c"]
