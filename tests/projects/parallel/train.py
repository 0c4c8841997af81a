"""A small Horovod project for the tests: every rank has a part of the points; what it does beside is told by flags."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import horovod.torch as hvd
import numpy as np
import torch

from trainyard import Run

parser = argparse.ArgumentParser()
parser.add_argument("--data-dir", type=Path, required=True)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--nap", type=float, default=0.0)  # seconds an epoch takes longer
parser.add_argument("--raise-on-rank", type=int)
parser.add_argument("--hang-rank", type=int)  # this rank goes no further after the first epoch
parser.add_argument("--stray", action="store_true")  # every rank starts a process in a session of its own
parser.add_argument("--echo", default="")
arguments = parser.parse_args()


def go_no_further():
    time.sleep(600)


hvd.init()
run = Run.get_context()
here = {"rank": hvd.rank(), "local_size": hvd.local_size(), "cross_size": hvd.cross_size(), "argv": sys.argv[1:]}
here |= {"environment": dict(os.environ), "files": sorted(str(path) for path in Path().rglob("*"))}
here |= {"node": hvd.cross_rank(), "points_inode": (arguments.data_dir / "points.npy").stat().st_ino}
Path(f"outputs/rank-{hvd.rank()}.json").write_text(json.dumps(here))
Path("outputs/same.txt").write_text(f"from rank {hvd.rank()}")
Path(f"logs/script-{hvd.rank()}.log").write_text("a line of the script's own\n")
print(f"rank {hvd.rank()} of {hvd.size()} says {arguments.echo}", flush=True)

if arguments.stray:
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    subprocess.Popen(["sh", "-c", "trap '' TERM HUP INT; sleep 600; sleep 600"], start_new_session=True)

checkpoint = Path(os.environ["TRAINYARD_CHECKPOINT_DIR"]) / "epochs" / "last.pt"
points = torch.from_numpy(np.load(arguments.data_dir / "points.npy"))[hvd.rank() :: hvd.size()]
labels = torch.from_numpy(np.load(arguments.data_dir / "labels.npy"))[hvd.rank() :: hvd.size()]
model = torch.nn.Linear(points.shape[1], 2)
start = 0
if checkpoint.exists():  # on every rank: a node has what all had
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(state["model"])
    start = state["epoch"]
optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.5), model.named_parameters())
hvd.broadcast_parameters(model.state_dict(), root_rank=0)
run.log("started_at_epoch", start)
for epoch in range(start, arguments.epochs):
    if arguments.raise_on_rank == hvd.rank() and epoch == 1:
        raise RuntimeError("this rank has had enough")
    if arguments.hang_rank == hvd.rank() and epoch == 1:
        go_no_further()
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(points), labels)
    loss.backward()
    optimizer.step()
    run.log("loss", loss.item(), step=epoch + 1)
    print(f"epoch {epoch + 1} done", flush=True)
    if hvd.rank() == 0:
        checkpoint.parent.mkdir(exist_ok=True)
        scratch = checkpoint.with_suffix(".tmp")
        torch.save({"model": model.state_dict(), "epoch": epoch + 1}, scratch)
        os.replace(scratch, checkpoint)
    time.sleep(arguments.nap)
