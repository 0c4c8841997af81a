"""Training scripts of many habits, each run as it is by the real train stage, on data that was really staged."""

import io
import json
import os
import tarfile
import textwrap

import pytest

from trainyard import Datastore, PyTorch, errors
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.staging.dataset import stage_references, verify_staged
from trainyard.tasks.training.snapshot import snapshot_source
from trainyard.tasks.training.task import train_components
from trainyard.tasks.training.train import train_model


class Team:
    """A training project, and the machine that it is brought to."""

    def __init__(self, root):
        self.project, self.root = root / "project", root
        self.context = StageContext(store_url=str(root / "store"), home=root / "home")
        self.data = None

    def write(self, files):
        for name, text in files.items():
            path = self.project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text).lstrip())
            path.chmod(0o755 if name.endswith(".sh") else 0o644)

    def train(self, entry="train.py", params=None, **values):
        estimator = PyTorch(
            source_directory=str(self.project), entry_script=entry, script_params=params or {}, **values
        )
        source = snapshot_source(self.project, self.context.store)
        self.data = stage_references(estimator.references, self.context)
        key = StageKey("train", train_components(estimator, source, self.data))
        return train_model(estimator, source, self.data, self.context, key)

    def printed(self, run, rank=0):
        return self.context.store.read_entry(run.logs, f"ranks/rank-{rank:05d}.log").decode()

    def outputs(self, run):
        return {entry.path for entry in self.context.store.list_tree(run.outputs).entries}


@pytest.fixture
def team(tmp_path):
    return Team(tmp_path)


HABITS = {
    "a click command with a subcommand": (
        {
            "train.py": """
                import click
                @click.group()
                def cli(): pass
                @cli.command()
                @click.option("--epochs", type=int, required=True)
                @click.option("--amsgrad", is_flag=True)
                def fit(epochs, amsgrad): click.echo(f"{epochs} {amsgrad}")
                cli()
            """
        },
        {"entry": "train.py", "params": {"fit": "", "--epochs": 3, "--amsgrad": ""}},
        "3 True",
    ),
    "several values for one argument, and values behind an equals sign": (
        {
            "train.py": """
                import argparse
                parser = argparse.ArgumentParser()
                parser.add_argument("--sizes", nargs="+", type=int)
                parser.add_argument("--tag", action="append")
                parser.add_argument("--no-cuda", action="store_true")
                parser.add_argument("name")
                print(vars(parser.parse_args()))
            """
        },
        {"params": {"--sizes": 8, "16": "", "--tag=a": "", "--tag=b": "", "--no-cuda": "", "--": "first"}},
        "{'sizes': [8, 16], 'tag': ['a', 'b'], 'no_cuda': True, 'name': 'first'}",
    ),
    "settings and data beside the script, read from wherever it is started": (
        {
            "src/train.py": """
                import os, sys
                sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
                from library.layers import width
                settings = os.path.join(os.path.dirname(__file__), "conf.txt")
                print(width, open("data/values.csv").read().strip(), open(settings).read().strip())
            """,
            "src/conf.txt": "adam",
            "library/__init__.py": "",
            "library/layers.py": "from .sizes import width",
            "library/sizes.py": "width = 64",
            "data/values.csv": "1,2",
        },
        {"entry": "src/train.py"},
        "64 1,2 adam",
    ),
    "writing into its own folder and over its own files": (
        {
            "train.py": """
                import json, os
                config = json.load(open("config.json"))
                json.dump({"epochs": config["epochs"] + 1}, open("config.json", "w"))
                os.makedirs("results", exist_ok=True)
                open("results/model.pt", "w").write("weights")
                open(os.path.join(os.path.dirname(__file__), "log.txt"), "a").write("line")
                print(open("config.json").read())
            """,
            "config.json": '{"epochs": 1}',
        },
        {},
        '{"epochs": 2}',
    ),
    "no guard, a global loop, and prints alone": (
        {"train.py": "total = 0\nfor step in range(3):\n    total += step\n    print('step', step, 'loss', total)\n"},
        {},
        "step 0 loss 0\nstep 1 loss 1\nstep 2 loss 3",
    ),
    "a shell script of the project's own, and itself as a worker": (
        {
            "train.py": """
                import subprocess, sys
                if sys.argv[1:] == ["worker"]:
                    print("worker")
                else:
                    subprocess.run(["./prepare.sh"], check=True)
                    subprocess.run([sys.executable, __file__, "worker"], check=True)
            """,
            "prepare.sh": "#!/bin/sh\necho prepared\n",
        },
        {},
        "prepared\nworker",
    ),
}


@pytest.mark.parametrize("habit", HABITS)
def test_a_script_of_this_habit_runs_as_it_is(team, habit):
    files, call, expected = HABITS[habit]
    team.write(files)
    before = {path: path.read_bytes() for path in team.project.rglob("*") if path.is_file()}
    assert team.printed(team.train(**call)).strip() == expected
    assert {path: path.read_bytes() for path in team.project.rglob("*") if path.is_file()} == before


LOADER = """
import torch
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __len__(self): return 8
    def __getitem__(self, index): return torch.tensor(float(index * index))

class Net(torch.nn.Linear):
    pass

if __name__ == "__main__":
    for method in ("fork", "spawn"):
        loader = DataLoader(Squares(), batch_size=4, num_workers=2, multiprocessing_context=method)
        print(method, sum(batch.sum().item() for batch in loader))
    torch.save(Net(2, 1), "model.pt")
    print(type(torch.load("model.pt", weights_only=False)).__name__)
"""


def test_workers_of_a_data_loader_and_a_pickled_module(team):
    team.write({"train.py": LOADER})
    run = team.train()
    assert team.printed(run) == "fork 140.0\nspawn 140.0\nNet\n"
    [left] = run.left_outside
    assert left.startswith("model.pt (")


def test_what_is_written_around_the_working_directory_is_the_runs_alone_and_told(team):
    team.write({"train.py": "import os\nos.makedirs('../models')\nopen('../models/best.pt', 'w').write('x')\n"})
    for _ in range(2):  # makedirs would fail if the first run's directory were still there
        assert team.train().left_outside == ("../models/best.pt (1 bytes)",)


def test_what_is_written_by_the_variable_is_an_output_wherever_the_script_has_gone(team):
    team.write(
        {
            "train.py": """
                import os
                from pathlib import Path
                os.chdir("/")
                Path(os.environ["TRAINYARD_OUTPUT_DIR"], "model.txt").write_text("weights")
                print(os.environ["TRAINYARD_RUN_ID"])
            """
        }
    )
    run = team.train()
    assert team.outputs(run) == {"model.txt"}
    assert team.context.store.read_entry(run.outputs, "model.txt") == b"weights"
    assert team.printed(run) == f"{run.run_id}\n"


@pytest.fixture
def archive(team):
    """A datastore with an archive, a file in a folder, and a cache that a script may think stale."""
    folder = team.root / "datastore"
    (folder / "raw").mkdir(parents=True)
    (folder / "raw" / "labels.txt").write_text("cat dog")
    (folder / "old.cache").write_text("stale")
    with tarfile.open(folder / "images.tar", "w") as tar:
        member = tarfile.TarInfo("images/one.txt")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"cat"))
    return Datastore(url=str(folder))


UNPACKS = """
import os, sys, tarfile
data = os.environ["DATA"]
print(sorted(os.listdir(data)))
tarfile.open(os.path.join(data, "images.tar")).extractall(data)
os.remove(os.path.join(data, "old.cache"))
os.rename(os.path.join(data, "raw"), os.path.join(data, "processed"))
open(os.path.join(data, "processed", "index"), "w").write(open(os.path.join(data, "images", "one.txt")).read())
print(sorted(os.listdir(data)))
"""


@pytest.mark.parametrize("mode", ["as_mount", "as_download"])
def test_a_script_may_unpack_add_rename_and_remove_beside_its_data(team, archive, mode):
    team.write({"train.py": UNPACKS})
    for run_number in (1, 2):  # the second finds what the first found
        run = team.train(params={"--run": run_number}, inputs={"DATA": getattr(archive, mode)()})
        assert team.printed(run).splitlines() == [
            "['images.tar', 'old.cache', 'raw']",
            "['images', 'images.tar', 'processed']",
        ]
        assert run.left_outside == ()
        verify_staged(team.data, team.context)
    assert not (team.context.home / "damaged").exists()
    assert not any((team.context.home / "work").glob("*/*"))


CHANGES = """
import os
path = os.path.join(os.environ["DATA"], "raw", "labels.txt")
print(open(path).read())
with open(path, "r+") as labels:
    labels.write("COW")
print(open(path).read())
"""


def test_a_downloaded_copy_may_be_changed_in_place(team, archive):
    team.write({"train.py": CHANGES})
    for run_number in (1, 2):
        run = team.train(params={"--run": run_number}, inputs={"DATA": archive.as_download()})
        assert team.printed(run) == "cat dog\nCOW dog\n"
        verify_staged(team.data, team.context)


def test_mounted_files_are_read_only_and_what_a_root_makes_of_changed_ones_is_no_result(team, archive):
    team.write({"train.py": CHANGES})
    if os.geteuid() != 0:
        with pytest.raises(errors.TrainingFailedError, match="PermissionError"):
            team.train(inputs={"DATA": archive})
        return
    with pytest.raises(errors.DataChangedError, match=r"raw/labels\.txt\. .*as_download\(\)") as caught:
        team.train(params={"--run": 1}, inputs={"DATA": archive})
    assert [os.path.basename(path) for path in caught.value.paths] == ["labels.txt"]
    with pytest.raises(errors.ArtifactDamagedError):
        verify_staged(team.data, team.context)
    with pytest.raises(errors.DataChangedError):
        team.train(params={"--run": 2}, inputs={"DATA": archive})
    [first, second] = sorted((team.context.home / "runs").glob("*/ranks/rank-00000.log"))
    assert second.read_text() == first.read_text() == "cat dog\nCOW dog\n", "staged anew in between"


CHECKPOINTS = """
import os, sys
from pathlib import Path
checkpoint, original = Path(os.environ["TRAINYARD_CHECKPOINT_DIR"], "last.txt"), Path(sys.argv[1])
print("goes on" if checkpoint.exists() else "begins", Path(os.environ["DATA"], original.name).read_text())
checkpoint.write_text("epoch 1")
if original.read_text() == "before":
    original.write_text("after")  # somebody else, meanwhile
"""


def test_an_original_that_is_written_to_while_a_training_reads_its_hard_link(team):
    """What is trained then is kept aside, and no later attempt goes on from its checkpoints."""
    (team.root / "datastore").mkdir()
    original = team.root / "datastore" / "words.txt"
    original.write_text("before")
    team.write({"train.py": CHECKPOINTS})
    job = {"params": {str(original): ""}, "inputs": {"DATA": Datastore(url=str(original.parent), link_mode="hardlink")}}
    with pytest.raises(errors.DataChangedError, match=r"words\.txt.*hardlink"):
        team.train(**job)
    [aside] = (team.context.home / "runs").glob("*/broken/last.txt")
    assert aside.read_text() == "epoch 1"
    original.write_text("before")  # the same bytes, so the same training
    with pytest.raises(errors.DataChangedError):
        team.train(**job)
    logs = sorted((team.context.home / "runs").glob("*/ranks/rank-00000.log"))
    assert [log.read_text() for log in logs] == ["begins before\n"] * 2
    assert team.printed(team.train(**job)) == "begins after\n"


PATHS_IN_THE_CODE = """
import os
print(*(sorted(os.listdir(path)) for path in ("../data", "../../shared/data", "data")))
print(open("../data/raw/labels.txt").read(), open(os.environ["LABELS"]).read(), open("data/own.txt").read())
"""


def test_data_lies_where_the_script_has_its_path_in_the_code(team, archive):
    team.write({"train.py": PATHS_IN_THE_CODE, "data/own.txt": "mine"})
    run = team.train(
        inputs={
            "ONE": archive.as_download(path_on_compute="../data"),
            "TWO": archive.path("raw/").as_mount("../../shared/data/"),
            "LABELS": archive.path("raw/labels.txt").as_mount("data"),
        }
    )
    listing, contents = team.printed(run).splitlines()
    assert listing == "['images.tar', 'old.cache', 'raw'] ['labels.txt'] ['labels.txt', 'own.txt']"
    assert contents == "cat dog cat dog mine"
    assert run.left_outside == ()


def test_data_never_takes_the_place_of_a_file_of_the_project(team, archive):
    team.write({"train.py": "", "raw/labels.txt": "mine"})
    with pytest.raises(errors.InvalidInputError, match=r"'labels.txt'.*has a file of that name already"):
        team.train(inputs={"DATA": archive.as_download("./")})


AZUREML_ON_TWO_RANKS = """
import horovod.torch as hvd, torch
from azureml.core.run import Run
hvd.init()
run = Run.get_context()
total = hvd.allreduce(torch.tensor([float(hvd.rank() + 1)]), op=hvd.Sum).item()
run.log("total", total)
run.log("rank", hvd.rank(), step=1)
run.log_row("ranks", rank=hvd.rank())
if hvd.rank() == 0:
    run.tag("ranks", str(hvd.size()))
"""
AT_ONCE = """
import os
from mpi4py import MPI
print(MPI.COMM_WORLD.allreduce(MPI.COMM_WORLD.rank), flush=True)
os._exit(0)
"""
MPI = {"process_count_per_node": 2, "distributed_backend": "mpi"}


def test_a_script_for_the_first_generation_sdk_on_two_horovod_ranks(team):
    team.write({"train.py": AZUREML_ON_TWO_RANKS})
    run = team.train(**MPI)
    for rank in (0, 1):
        lines = team.context.store.read_entry(run.records, f"rank-{rank:05d}.jsonl").decode().splitlines()
        records = [
            (r["kind"], r["name"], r["value"]) for r in map(json.loads, lines) if r["kind"] not in ("rank", "device")
        ]
        expected = [("scalar", "total", 3.0), ("scalar", "rank", rank), ("row", "ranks", {"rank": rank})]
        assert records == expected + ([("tag", "ranks", "2")] if rank == 0 else [])


def test_ranks_may_end_at_once(team):
    """As many scripts do under MPI, so that no thread of a library keeps them."""
    team.write({"train.py": AT_ONCE})
    run = team.train(**MPI)
    assert [team.printed(run, rank) for rank in (0, 1)] == ["1\n", "1\n"]


def test_ranks_that_end_at_once_must_have_joined_too(team):
    team.write({"train.py": "import os\nprint('done', flush=True)\nos._exit(0)\n"})
    with pytest.raises(errors.NeverJoinedError):
        team.train(**MPI)
