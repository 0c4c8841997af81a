"""What the stage cache costs: a verified hit beside the work it saves, and beside plain tools on the same bytes.

    python -m benchmarks.cache [--quick] [--rounds 3] [--json cache.json]

On this machine's disk a hit reads and hashes what it refers to, as ``sha256sum`` does; on S3 (rclone's server) it
reads it over HTTP, as ``rclone check --download`` does.
"""

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.measuring import RESULTS, python, report, run_process
from benchmarks.staging import rclone_program, rclone_remote
from tests.integration.s3_server import run_s3_server

MB = 1_000_000
FULL = {"1,000 x 20 KB": (1000, 20_000), "1 x 256 MB": (1, 256 * MB)}
QUICK = {"50 x 20 KB": (50, 20_000), "1 x 16 MB": (1, 16 * MB)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small cases, to see that it works")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "cache.json")
    options = parser.parse_args()
    cases = QUICK if options.quick else FULL
    measurements = []
    with tempfile.TemporaryDirectory() as name, run_s3_server(Path(name) / "s3", dir_cache_time="1h") as server:
        scratch = Path(name)
        server.create_bucket("store")
        for turn in range(options.rounds):
            for case, (num_files, num_bytes) in cases.items():
                tree = _fill(scratch / f"{turn} {case}", num_files, num_bytes)
                environment = {**server.environment(), "AWS_ENDPOINT_URL": server.endpoint_url}
                bucket = f"store/{turn}-{num_files}"
                copied = rclone_remote(server) + f"store/copy-{turn}-{num_files}"
                commands = {
                    "local store: first run": _worker(tree, str(scratch / f"store-{turn}-{num_files}"), scratch),
                    "local store: verified hit": _worker(tree, str(scratch / f"store-{turn}-{num_files}"), scratch),
                    "sha256sum": ["sh", "-c", f"find '{tree}' -type f -exec sha256sum {{}} + > /dev/null"],
                    "S3 store: first run": _worker(tree, f"s3://{bucket}", scratch),
                    "S3 store: verified hit": _worker(tree, f"s3://{bucket}", scratch),
                    "rclone copy": [rclone_program(), "copy", str(tree), copied, "--quiet", "--config", "/dev/null"],
                    "rclone check --download": [
                        *[rclone_program(), "check", "--download", str(tree), copied],
                        *["--quiet", "--config", "/dev/null"],
                    ],
                }
                for contender, command in commands.items():
                    finished = run_process(command, environment)
                    measurements.append(finished.as_measurement(case, contender, turn))
    ordered = [m for case in cases for m in measurements if m.case == case]
    report(
        "The stage cache", ordered, ["sha256sum", "rclone check --download"], {"rounds": options.rounds}, options.json
    )


def _worker(tree: Path, store: str, scratch: Path) -> list[str]:
    return python("benchmarks.cache_worker", str(tree), store, str(scratch / "home"))


def _fill(tree: Path, num_files: int, num_bytes: int) -> Path:
    tree.mkdir()
    for n in range(num_files):
        (tree / f"{n:05}.bin").write_bytes(os.urandom(num_bytes))
    return tree


if __name__ == "__main__":
    main()
