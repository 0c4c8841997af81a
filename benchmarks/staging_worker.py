"""One staging in a process of its own: ``python -m benchmarks.staging_worker KIND ENDPOINT BUCKET TARGET``."""

import json
import os
import sys
import time
from pathlib import Path


def main(kind: str, endpoint_url: str, bucket: str, target: str) -> None:
    if kind == "trainyard-s3fs":
        os.environ["TRAINYARD_S3_TRANSPORT"] = "s3fs"
    import s3fs

    from trainyard.tasks.caching.stage import StageContext
    from trainyard.tasks.specs.datastore import Datastore
    from trainyard.tasks.staging.dataset import stage_references
    from trainyard.tasks.staging.listing import list_reference

    reference = Datastore(url=f"s3://{bucket}", endpoint_url=endpoint_url).as_mount()
    started, cpu_started = time.perf_counter(), time.process_time()
    if kind == "list":
        list_reference(reference)
    elif kind in ("s3fs-get", "s3fs-find"):
        fs = s3fs.S3FileSystem(client_kwargs={"endpoint_url": endpoint_url}, use_listings_cache=False)
        if kind == "s3fs-find":
            fs.find(bucket, detail=True)
        else:
            fs.get(bucket, target, recursive=True)
    else:
        home = Path(target)
        stage_references([reference], StageContext(store_url=str(home / "store"), home=home))
    print(json.dumps({"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu_started}))


if __name__ == "__main__":
    main(*sys.argv[1:])
