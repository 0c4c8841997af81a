"""Writers that are killed, that fail, and that are many at once."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.unit.registry.proofs import LINEAGE, proven, version_folder
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import ArtifactDamagedError
from trainyard.tasks.registry.register import register_model, verify_registered
from trainyard.tasks.registry.versions import list_versions

ROOT = Path(__file__).resolve().parents[3]


def files_below(context, path="models"):
    root = (context.store.root / path).local_path
    return sorted(found.relative_to(root).as_posix() for found in root.rglob("*") if found.is_file())


def test_what_a_killed_writer_left_is_no_version_reserves_no_number_and_is_removed(context, proof):
    register_model("digits", *proof, LINEAGE, context)
    for version in (1, 2):  # one that would have lost, one that would have won
        left = (context.store.root / f"models/digits/{version}/dead/model.onnx").local_path
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half")
    assert list_versions(context.store, "digits") == [1]
    assert register_model("digits", *proof, LINEAGE, context).version == 2
    assert not [path for path in files_below(context) if "dead" in path]
    for version in (1, 2):
        assert version_folder(context, version).is_dir()


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.registry.proofs import LINEAGE, proven
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.registry.register import register_model

context = StageContext(store_url=sys.argv[1], home=Path(sys.argv[2]))
proof = proven(context, Path(sys.argv[2]) / "bundle")
writes = iter(range(int(sys.argv[3])))

def counted(original):
    def write(self, *arguments):
        if "/models/" in self.url and next(writes, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *arguments)
    return write

Location.upload, Location.create_bytes = counted(Location.upload), counted(Location.create_bytes)
register_model("digits", *proof, LINEAGE, context)
"""


@pytest.mark.parametrize("num_writes", [1, 6])
def test_a_registration_that_is_killed_leaves_no_version_and_no_number_taken(context, proof, tmp_path, num_writes):
    """Killed after the first file, and when all files but the manifest are there."""
    command = [sys.executable, "-c", KILLED, context.store_url, str(tmp_path / "killed"), str(num_writes)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(files_below(context)) == num_writes
    assert list_versions(context.store, "digits") == []
    assert register_model("digits", *proof, LINEAGE, context).version == 1
    assert {path.split("/")[0] for path in files_below(context, "models/digits/1")} == {
        "manifest.json",
        version_folder(context, 1).name,
    }


def test_a_registration_that_fails_leaves_no_file(context, proof):
    bundle, validated = proof
    report = validated.report
    (context.store.root / f"objects/{report.sha256[:2]}/{report.sha256}").delete()
    with pytest.raises(ArtifactDamagedError):
        register_model("digits", bundle, validated, LINEAGE, context)
    assert [path for path in (context.store.root / "models").local_path.rglob("*") if path.is_file()] == []


def register_three(store_url, home, folder):
    """For processes of their own."""
    context = StageContext(store_url=store_url, home=home)
    bundle, validated = proven(context, folder)
    return [register_model("digits", bundle, validated, LINEAGE, context) for _ in range(3)]


@pytest.mark.parametrize("workers", ["processes", "threads"])
def test_registrations_at_once_all_succeed_with_versions_of_their_own(context, tmp_path, workers):
    pool = {
        "processes": lambda: ProcessPoolExecutor(4, mp_context=get_context("spawn")),
        "threads": lambda: ThreadPoolExecutor(8),
    }[workers]
    with pool() as executor:
        futures = [
            executor.submit(register_three, context.store_url, context.home, tmp_path / f"bundle-{n}") for n in range(8)
        ]
        models = [model for future in futures for model in future.result()]
    assert sorted(model.version for model in models) == list(range(1, 25))
    assert list_versions(context.store, "digits") == list(range(1, 25))
    for model in models:
        verify_registered(model, context)
