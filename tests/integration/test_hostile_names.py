"""Hostile arguments, names and values reach the script as they are; values of the environment reach nobody else."""

import json
import logging
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from trainyard import Datastore, PyTorch
from trainyard.tasks import errors
from trainyard.tasks.artifacts.products import StagedData
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.staging.dataset import stage_listings
from trainyard.tasks.staging.listing import list_reference
from trainyard.tasks.training.preflight import training_problems
from trainyard.tasks.training.snapshot import snapshot_source
from trainyard.tasks.training.train import train_model

PROJECTS = Path(__file__).parents[1] / "projects"
MPI = {"process_count_per_node": 2, "distributed_backend": "mpi"}
HOSTILE = [
    *(" ", "a b", "'", '"', "quo'te\"d", "line\nbreak", "tab\there", "ünï-日本", "-x", "--", "--help", "-H", "--np"),
    *("$(touch hacked)", "`touch hacked`", "; touch hacked", "&& touch hacked", "| cat", "> hacked", "*", "~", "{a,b}"),
    *(":", "\\:", "\\\\:", "::", "a:b", "\\", "%s %h %p", "@file", "#", "!", "x" * 10_000, "\x01\x7f"),
]


def train(project, home, store, entry_script="train.py", **changes):
    context = StageContext(store_url=str(store), home=home)
    estimator = PyTorch(source_directory=str(project), entry_script=entry_script, **changes)
    assert training_problems(estimator) == []
    listings = [list_reference(reference) for reference in estimator.references]
    data = stage_listings(listings, context, lambda *_: None) if listings else StagedData()
    source = snapshot_source(project, context.store)
    run = train_model(estimator, source, data, context, StageKey("train", {"test": str(project)}))
    told = [json.loads(context.store.read_entry(run.outputs, f"told-{r}.json")) for r in range(run.world_size)]
    assert not [path for path in home.rglob("*") if path.name == "hacked"]
    return told


@pytest.fixture
def project(tmp_path):
    return Path(shutil.copytree(PROJECTS / "telling", tmp_path / "project"))


@pytest.mark.parametrize("topology", [{}, MPI], ids=["single", "mpi"])
def test_arguments_and_values_arrive_as_they_are(project, home, tmp_path, topology):
    params = {f"--{n}": value for n, value in enumerate(HOSTILE)} | {":": ":", "--last 'one": "x"}
    values = {f"HOSTILE_{n}": value for n, value in enumerate([*HOSTILE, "a=b;c=d", "() { :; }; touch hacked", ""])}
    told = train(project, home, tmp_path / "store", script_params=params, environment_variables=values, **topology)
    for rank in told:
        assert rank["arguments"] == [word for item in params.items() for word in item]
        assert rank["environment"] == values


@pytest.mark.parametrize("topology", [{}, MPI], ids=["single", "mpi"])
@pytest.mark.parametrize(
    "script", ["-x.py", "a b.py", "ünï.py", "$(touch hacked).py", "line\nbreak.py", ":", "it's.py"]
)
def test_entry_scripts_of_any_name(project, home, tmp_path, topology, script):
    (project / "train.py").rename(project / script)
    for rank in train(project, home, tmp_path / "store", script, **topology):
        assert rank["script"] == f"./{script}"


@pytest.mark.parametrize("topology", [{}, MPI], ids=["single", "mpi"])
def test_directories_and_data_of_any_name(project, home, tmp_path, topology):
    folder = tmp_path / "-a b'\"$(touch hacked)\n:ünï"
    names = ["-x", "a b", "quo'te\"", "line\nbreak", "ünï", "$(touch hacked)", ";", "*", ":", "%41", "deep/#?x"]
    for name in names:
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).write_text(name)
    project = project.rename(folder / "project")
    told = train(
        *(project, folder / "home", folder / "store"),
        inputs={"DATA": Datastore(url=str(folder / "data"))},
        script_params={"--data": Datastore(url=str(folder / "data"))},
        **topology,
    )
    for rank in told:
        assert rank["data"] == sorted(names)
        assert rank["arguments"] == ["--data", rank["environment"]["DATA"]]


def test_outputs_whose_names_are_not_utf8_are_kept(project, home, tmp_path):
    script = project / "train.py"
    script.write_text(script.read_text() + "\nopen(b'outputs/caf\\xe9.txt', 'w').write('kept')\n")
    context = StageContext(store_url=str(tmp_path / "store"), home=home)
    source = snapshot_source(project, context.store)
    estimator = PyTorch(source_directory=str(project), entry_script="train.py")
    run = train_model(estimator, source, StagedData(), context, StageKey("train", {}))
    assert context.store.read_entry(run.outputs, "caf\\xe9.txt") == b"kept"


def test_names_that_would_become_one_are_refused(tmp_path):
    store = StageContext(store_url=str(tmp_path / "store"), home=tmp_path).store
    files = tmp_path / "files"
    files.mkdir()
    for name in (b"caf\xe9", b"caf\\xe9"):
        Path(os.fsdecode(os.path.join(os.fsencode(files), name))).write_text("x")
    with pytest.raises(errors.InvalidInputError, match="not UTF-8"):
        store.put_tree(files)


def test_source_files_whose_names_are_not_utf8_are_refused_before_anything_is_launched(project):
    Path(os.fsdecode(os.path.join(os.fsencode(project), b"caf\xe9.py"))).touch()
    (problem,) = training_problems(PyTorch(source_directory=str(project), entry_script="train.py"))
    assert "not named in UTF-8" in problem
    problem.encode()  # can be printed


ENDS = {"raise": "raise ConnectionError('gone')", "segfault": "import ctypes; ctypes.string_at(0)", "well": "pass"}
JOIN = "if 'OMPI_COMM_WORLD_RANK' in os.environ:\n    from mpi4py import MPI\n    MPI.COMM_WORLD.Barrier()\n"


def watch_command_lines(seen, done):
    while not done.wait(0.1):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                seen.add(path.read_bytes())


@pytest.mark.parametrize("topology", [{}, MPI], ids=["single", "mpi"])
@pytest.mark.parametrize("end", ENDS)
def test_values_of_the_environment_are_written_nowhere(project, home, tmp_path, monkeypatch, caplog, topology, end):
    secrets = {"HOSTILE_TOKEN": "s3cr3t-in-a-variable", "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-aws"}
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secrets["AWS_SECRET_ACCESS_KEY"])
    (project / "train.py").write_text(
        "import os, time\n"
        f"assert len(os.environ['AWS_SECRET_ACCESS_KEY']) == {len('s3cr3t-of-aws')}\ntime.sleep(1)\n{JOIN}{ENDS[end]}\n"
    )
    context = StageContext(store_url=str(tmp_path / "store"), home=home)
    source = snapshot_source(project, context.store)
    variables = {"HOSTILE_TOKEN": secrets["HOSTILE_TOKEN"]}
    estimator = PyTorch(
        source_directory=str(project), entry_script="train.py", environment_variables=variables, **topology
    )
    seen, done = set(), threading.Event()
    look = threading.Thread(target=watch_command_lines, args=(seen, done))
    look.start()
    said = ""
    with caplog.at_level(logging.DEBUG):
        try:
            train_model(estimator, source, StagedData(), context, StageKey("train", {}))
        except errors.TrainingFailedError as error:
            said = f"{error!r} {error} {error.__dict__}"
        finally:
            done.set()
            look.join()
    assert bool(said) == (end != "well")
    assert any(b"trainyard.tasks.runtime" in line for line in seen)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for secret in secrets.values():
        assert secret not in said
        assert secret not in caplog.text
        assert not [line for line in seen if secret.encode() in line]
        assert not [path for path, content in written.items() if secret.encode() in content]
