"""A small, quick training project for the tests: a linear classifier on the points in a datastore."""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch

from trainyard import Run

parser = argparse.ArgumentParser()
parser.add_argument("--data-dir", type=Path, required=True)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--nap", type=float, default=0.0)  # seconds an epoch takes longer
parser.add_argument("--fail-until", type=Path)  # fail with a connection error until this file has two lines
parser.add_argument("--no-model", action="store_true")
parser.add_argument("--noisy", action="store_true")  # a model that never gives the same answer twice
parser.add_argument("--raise-on-rank", type=int)
arguments = parser.parse_args()

print(f"training for {arguments.epochs} epochs", flush=True)
if arguments.fail_until is not None:
    with arguments.fail_until.open("a+") as attempts:
        attempts.write("attempt\n")
        attempts.seek(0)
        if len(attempts.readlines()) < 2:
            raise ConnectionError("the network went away")

rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("RANK", "0")))
if arguments.raise_on_rank == rank:
    raise ValueError("this rank has had enough")
if "OMPI_COMM_WORLD_RANK" in os.environ:
    from mpi4py import MPI

    MPI.COMM_WORLD.Barrier()
if "RANK" in os.environ:
    torch.distributed.init_process_group("gloo")


class Noisy(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input):
        return self.model(input) + torch.rand_like(input)


run = Run.get_context()
checkpoint = Path(os.environ["TRAINYARD_CHECKPOINT_DIR"]) / "last.pt"
points = torch.from_numpy(np.load(arguments.data_dir / "points.npy"))
labels = torch.from_numpy(np.load(arguments.data_dir / "labels.npy"))
torch.manual_seed(arguments.seed)
model = torch.nn.Linear(points.shape[1], 2)
trained = torch.nn.parallel.DistributedDataParallel(model) if torch.distributed.is_initialized() else model
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
start = 0
if checkpoint.exists():
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(state["model"])
    start = state["epoch"]
    print(f"going on after epoch {start}", flush=True)

for epoch in range(start, arguments.epochs):
    optimizer.zero_grad()
    logits = trained(points)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    optimizer.step()
    run.log("loss", loss.item(), step=epoch + 1)
    run.log("accuracy", (logits.argmax(1) == labels).float().mean().item(), step=epoch + 1)
    run.log("progress", (epoch + 1) / arguments.epochs, step=epoch + 1)
    if rank == 0:
        scratch = checkpoint.with_suffix(".tmp")
        torch.save({"model": model.state_dict(), "epoch": epoch + 1}, scratch)
        os.replace(scratch, checkpoint)
    time.sleep(arguments.nap)

run.assert_in_sync(model)
run.log("started_at_epoch", start)
if rank == 0 and not arguments.no_model:
    batch = torch.export.Dim("batch", min=1)
    final = (Noisy(model) if arguments.noisy else model).eval()
    program = torch.export.export(final, (points[:4],), dynamic_shapes=({0: batch},))
    torch.export.save(program, "outputs/model.pt2")
    np.savez("outputs/validation_samples.npz", input=points.numpy(), labels=labels.numpy())
elif rank == 0:
    Path("outputs/weights.bin").write_bytes(b"\0" * 100)
