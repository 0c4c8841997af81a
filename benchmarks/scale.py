"""Memory of a staging at scale: many small objects, one huge one, from a server that makes their bytes up.

    python -m benchmarks.scale [--objects 100000] [--gigabytes 20]

The huge object needs as much free disk; the server runs in this process, the staging in another, whose peak is shown.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.measuring import python, run_process
from tests.integration.fault_server import made_up, run_fault_server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--gigabytes", type=float, default=20)
    options = parser.parse_args()
    environment = {"AWS_ACCESS_KEY_ID": "benchmark-key-id", "AWS_SECRET_ACCESS_KEY": "benchmark-secret-key"}
    with run_fault_server() as server, tempfile.TemporaryDirectory() as scratch:
        small = made_up(1000)
        server.buckets["many"] = {f"{n % 100:02}/{n:07}.bin": small for n in range(options.objects)}
        server.buckets["huge"] = {"huge.bin": made_up(int(options.gigabytes * 1e9))}
        server.buckets["one"] = {"small.bin": small}
        cases = [
            ("one small object", "trainyard", "one"),
            (f"list {options.objects:,} objects", "list", "many"),
            (f"stage {options.objects:,} objects of 1 kB", "trainyard", "many"),
            ("the same again", "trainyard", "many"),
            (f"stage one object of {options.gigabytes:g} GB", "trainyard", "huge"),
        ]
        for what, kind, bucket in cases:
            target = str(Path(scratch) / bucket)
            command = python("benchmarks.staging_worker", kind, server.endpoint_url, bucket, target)
            done = run_process(command, environment)
            figures = f"{done.seconds:8.1f} s   CPU {done.cpu_s:7.1f} s   peak {done.peak_mib:6.0f} MiB"
            print(f"{what:45} {figures}", flush=True)


if __name__ == "__main__":
    main()
