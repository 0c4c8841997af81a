"""Train a small network on handwritten digits, on one process or on many.

    python train.py --data-dir DATA                               one process, no Horovod needed
    mpirun -np 2 python -m mpi4py train.py --data-dir DATA        two ranks, with Horovod
    torchrun --nproc-per-node 2 train.py --data-dir DATA          two ranks, with torch.distributed

Written below ``outputs/``: ``model.pt2`` (the trained program, as ``torch.export`` saves it) and
``validation_samples.npz`` (the held-out images and labels, to test what is made of the model). Checkpoints go
to ``$TRAINYARD_CHECKPOINT_DIR``, by default ``outputs/checkpoints``; a second start goes on from the newest.
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from checkpoints import load_checkpoint, save_checkpoint
from model import DigitsNet
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Adam, Optimizer
from world import World, join_world

from trainyard import Run

OUTPUTS = Path("outputs")
HELD_OUT = 0.2
SPLIT_SEED = 0  # never --seed: runs that are compared are tested on the same images


@dataclass(frozen=True)
class Samples:
    """Images float32 [samples, 1, 8, 8] and their labels int64 [samples]."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: torch.Tensor) -> "Samples":
        return Samples(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> "Samples":
        """The same samples in a device's memory."""
        return Samples(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Totals:
    """Sums over samples: they can be added over batches and ranks, where averages could not."""

    loss: float
    correct: float
    count: float

    @property
    def mean_loss(self) -> float:
        """Loss of a sample, on average."""
        return self.loss / self.count

    @property
    def accuracy(self) -> float:
        """Fraction of the samples that were classified right."""
        return self.correct / self.count


def setup() -> argparse.Namespace:
    """What the command line asks for."""
    checkpoint_dir = Path(os.environ.get("TRAINYARD_CHECKPOINT_DIR", OUTPUTS / "checkpoints"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="holds images.npy and labels.npy")
    parser.add_argument("--checkpoint-dir", type=Path, default=checkpoint_dir)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32, help="samples a step on each rank")
    parser.add_argument("--lr", type=float, default=2e-3, help="learning rate of one rank, scaled by their number")
    parser.add_argument("--lr-decay", type=float, default=0.9, help="factor on the learning rate an epoch")
    parser.add_argument("--warmup-epochs", type=float, default=1.0, help="until the scaled rate is reached")
    parser.add_argument("--amsgrad", action="store_true", help="the AMSGrad variant of Adam")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Train, from the start or from the newest checkpoint, and save the model."""
    args = setup()
    world = join_world()
    device = choose_device(world)
    training, held_out = split(read_samples(args.data_dir), HELD_OUT)

    torch.manual_seed(args.seed)
    model = DigitsNet().to(device)
    optimizer = world.distribute(Adam(model.parameters(), lr=args.lr, amsgrad=args.amsgrad), model)
    fit(args, world, model, optimizer, training.to(device), held_out.to(device))
    Run.get_context().assert_in_sync(model)
    if world.rank == 0:
        save_model(model.cpu(), held_out)


def fit(
    args: argparse.Namespace,
    world: World,
    model: nn.Module,
    optimizer: Optimizer,
    training: Samples,
    held_out: Samples,
) -> None:
    """The epochs that are left: train, validate, keep a checkpoint, log."""
    run = Run.get_context()
    first_epoch = resume(args.checkpoint_dir, model, optimizer, world)
    for epoch in range(first_epoch, args.epochs):
        started = time.perf_counter()
        trained, num_own = train_epoch(args, world, model, optimizer, training, epoch)
        run.log("samples_per_second", num_own / (time.perf_counter() - started), step=epoch + 1)
        validated = validate(model, held_out, world)
        if world.rank == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save_checkpoint(args.checkpoint_dir, epoch + 1, state)
            log_epoch(run, epoch + 1, args.epochs, validated, trained)
    if first_epoch >= args.epochs:  # it was stopped after its last epoch: its metrics are still wanted
        validated = validate(model, held_out, world)
        if world.rank == 0:
            log_epoch(run, first_epoch, args.epochs, validated)


def train_epoch(
    args: argparse.Namespace,
    world: World,
    model: nn.Module,
    optimizer: Optimizer,
    training: Samples,
    epoch: int,
) -> tuple[Totals, int]:
    """One pass over the training samples.

    Returns:
        The totals of all ranks, and how many samples this rank took.
    """
    # All randomness follows from seed, epoch and rank: a resumed run repeats what it would have done.
    torch.manual_seed((args.seed * 100_003 + epoch) * 100_003 + world.rank)
    model.train()
    batches = global_batches(len(training), args.batch_size * world.size, seed=args.seed + epoch)
    counted = []
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(epoch + step / len(batches), args, world.size)
        own = training[own_share(batch, world)]
        optimizer.zero_grad()
        logits = model(own.images)
        loss = cross_entropy(logits, own.labels, reduction="sum")
        (loss / len(batch)).backward()  # the sum over ranks is the gradient of the global batch's mean loss
        optimizer.step()
        counted.append(count(loss, logits, own))
    totals = torch.stack(counted).sum(dim=0)
    return reduce(totals, world), int(totals[2])


@torch.no_grad()
def validate(model: nn.Module, held_out: Samples, world: World) -> Totals:
    """Loss and accuracy on the held-out samples, of which each rank takes a share."""
    model.eval()
    own = held_out[own_share(torch.arange(len(held_out)), world)]
    logits = model(own.images)
    loss = cross_entropy(logits, own.labels, reduction="sum")
    return reduce(count(loss, logits, own), world)


def count(loss: torch.Tensor, logits: torch.Tensor, samples: Samples) -> torch.Tensor:
    """Sum of losses, number of right answers, number of samples: float64 [3]."""
    correct = (logits.argmax(dim=1) == samples.labels).sum()
    return torch.stack([loss.detach().double(), correct.double(), correct.new_tensor(len(samples)).double()])


def reduce(totals: torch.Tensor, world: World) -> Totals:
    """The totals of all ranks together."""
    return Totals(*world.sum(totals).tolist())


def learning_rate(epoch: float, args: argparse.Namespace, num_ranks: int) -> float:
    """The learning rate at a moment of training.

    Scaled by the number of ranks, as their batches add up to a larger one, after a linear warm-up from the
    rate of one rank (Goyal et al. 2017, "Accurate, Large Minibatch SGD"); and decayed epoch by epoch.
    """
    warmed = min(epoch / args.warmup_epochs, 1.0) if args.warmup_epochs > 0 else 1.0
    return args.lr * (1 + (num_ranks - 1) * warmed) * args.lr_decay ** int(epoch)


def global_batches(num_samples: int, batch_size: int, seed: int) -> tuple[torch.Tensor, ...]:
    """All indices, shuffled alike on every rank, in near equal batches of at most ``batch_size``."""
    order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(seed))
    return order.tensor_split(-(-num_samples // batch_size))


def own_share(indices: torch.Tensor, world: World) -> torch.Tensor:
    """The part of some indices that this rank takes: no index is left out, or taken twice."""
    return indices[world.rank :: world.size]


def resume(directory: Path, model: nn.Module, optimizer: Optimizer, world: World) -> int:
    """Bring all ranks to the same state: rank 0's newest checkpoint, or its fresh parameters.

    Returns:
        The epoch to go on with.
    """
    checkpoint = load_checkpoint(directory) if world.rank == 0 else None
    if checkpoint is not None:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        print(f"Going on after epoch {checkpoint['epoch']} from {directory}", flush=True)
    world.broadcast_state(model, optimizer)
    return world.broadcast(0 if checkpoint is None else checkpoint["epoch"])


def log_epoch(run: Run, epoch: int, num_epochs: int, validated: Totals, trained: Totals | None = None) -> None:
    """What the pipeline shows, and keeps, of an epoch."""
    run.log("epoch", epoch, step=epoch)
    run.log("progress", epoch / max(num_epochs, 1), step=epoch)
    run.log("loss", validated.mean_loss, step=epoch)
    run.log("accuracy", validated.accuracy, step=epoch)
    if trained is not None:
        run.log("train/loss", trained.mean_loss, step=epoch)
        run.log("train/accuracy", trained.accuracy, step=epoch)


def save_model(model: nn.Module, held_out: Samples) -> None:
    """Write the program with a free batch size, and the held-out samples under the program's input name."""
    from torch.export import Dim, export, save

    OUTPUTS.mkdir(exist_ok=True)
    example = held_out.images[:2]
    program = export(model.eval(), (example,), dynamic_shapes={"image": {0: Dim("batch")}})
    save(program, OUTPUTS / "model.pt2")
    samples = {"image": held_out.images.numpy(), "labels": held_out.labels.numpy()}
    np.savez(OUTPUTS / "validation_samples.npz", **samples)


def read_samples(directory: Path) -> Samples:
    """The data set."""
    arrays = (torch.from_numpy(np.load(directory / name)) for name in ("images.npy", "labels.npy"))
    return Samples(*arrays)


def split(samples: Samples, fraction: float) -> tuple[Samples, Samples]:
    """Hold out the same fraction of every class.

    Returns:
        The training samples and the held-out samples.
    """
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    held_out = torch.zeros(len(samples), dtype=torch.bool)
    for indices in indices_by_class(samples.labels):
        order = torch.randperm(len(indices), generator=generator)
        held_out[indices[order[: round(fraction * len(indices))]]] = True
    return samples[~held_out], samples[held_out]


def indices_by_class(labels: torch.Tensor) -> Iterator[torch.Tensor]:
    """Where each label occurs."""
    for label in labels.unique():
        yield (labels == label).nonzero().flatten()


def choose_device(world: World) -> torch.device:
    """This rank's GPU where GPUs are visible, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", world.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


if __name__ == "__main__":
    main()
