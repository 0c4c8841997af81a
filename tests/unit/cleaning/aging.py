"""Stores and homes with things in them, and the time that passes over them."""

import json
import os
import time
from pathlib import Path

from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.stage import Stage, run_stage
from trainyard.tasks.cleaning.collect import collect_garbage
from trainyard.tasks.cleaning.plan import Limits
from trainyard.tasks.specs.spec import Spec

DAY = 24 * 3600
EVERYTHING = Limits(max_bytes=0, keep_s=0)


class Tree(Spec):
    tree: ArtifactRef


EXPORT = Stage(name="export", product_type=Tree, packages=())


def make(context, name, tmp_path, run_folder=None):
    """A cached result: a tree of two files, one shared by all results."""
    folder = tmp_path / f"tree {name}"
    folder.mkdir(exist_ok=True)
    (folder / "own.txt").write_text(name * 100)
    (folder / "shared.txt").write_text("shared")
    context = context.model_copy(update={"run_folder": run_folder})
    return run_stage(EXPORT, {"config:x": name}, lambda key: Tree(tree=context.store.put_tree(folder)), context)


def age(root, days):
    """As if everything had been there, unused, for so many days."""
    then = time.time() - days * DAY
    for directory, _, names in os.walk(root):
        for name in [*names, "."]:
            os.utime(Path(directory) / name, (then, then))


def age_notes(context, days):
    for path in Path(context.store_url).glob("runs/*/*.json"):
        note = json.loads(path.read_text())
        note["noted"] = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() - days * DAY))}"
        path.write_text(json.dumps(note))


def collect(context, limits=EVERYTHING, dry_run=False):
    return collect_garbage(context.store, context.home, limits, dry_run=dry_run)


def status(context, name, tmp_path):
    return make(context, name, tmp_path).status
