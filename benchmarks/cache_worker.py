"""One stage that stores a directory, in a process of its own: ``python -m benchmarks.cache_worker TREE STORE HOME``."""

import json
import sys
import time
from pathlib import Path

from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.stage import Stage, StageContext, run_stage
from trainyard.tasks.specs.spec import Spec


class Tree(Spec):
    tree: ArtifactRef


def main(tree: str, store: str, home: str) -> None:
    stage = Stage(name="export", product_type=Tree, packages=("trainyard.tasks.export",))
    context = StageContext(store_url=store, home=Path(home))
    started, cpu_started = time.perf_counter(), time.process_time()
    result = run_stage(stage, {"tree": tree}, lambda key: Tree(tree=context.store.put_tree(Path(tree))), context)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - started,
                "cpu_s": time.process_time() - cpu_started,
                "status": result.status,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
