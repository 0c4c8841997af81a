"""A rank that ends as the tests ask it to, while the other ranks do what the tests ask them to."""

import argparse
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--end", default="nothing")  # how the chosen rank ends
parser.add_argument("--rank", type=int, default=0)  # the chosen rank
parser.add_argument("--others", default="wait")  # what the other ranks do meanwhile: one word for all, or one each
parser.add_argument("--child", action="store_true")  # each rank first starts a child that does not want to go
parser.add_argument("--write", action="store_true")  # each rank leaves something in outputs/ and logs/
parser.add_argument("--mark", default="")
arguments = parser.parse_args()
rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("RANK", "0")))
world_size = int(os.environ.get("OMPI_COMM_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))

STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def collective():
    from mpi4py import MPI

    MPI.COMM_WORLD.allreduce(1)


def native_call():
    """A long call in C that keeps the interpreter to itself: no Python signal handler runs."""
    ctypes.PyDLL(None).sleep(600)


def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


class Endless:
    def __len__(self):
        return 8

    def __getitem__(self, index):
        time.sleep(600)


def data_loader():
    from torch.utils.data import DataLoader

    for _ in DataLoader(Endless(), num_workers=2):
        pass


def workers():
    """Two workers as a data loader has them, without the seconds that importing torch takes."""
    for _ in range(2):
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True).start()
    time.sleep(600)


def raise_beside_a_thread():
    threading.Thread(target=time.sleep, args=(600,)).start()  # the interpreter waits for it at exit
    raise ConnectionError("the network went away")


def hog():
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(1 << 20) * 16))


ENDS = {
    "nothing": lambda: None,
    "raise": lambda: {}["missing"],
    "raise-beside-a-thread": raise_beside_a_thread,
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit-3": lambda: sys.exit(3),
    "_exit-3": lambda: os._exit(3),
    "hog": hog,
    "wait": lambda: time.sleep(600),
    "collective": collective,
    "native-call": native_call,
    "deaf": deaf,
    "data-loader": data_loader,
    "workers": workers,
}


def others_are_ready():
    """The others say so in a file right before they begin what they do; one that is told nothing never ends."""
    return all(Path(f"ready-{other}").exists() for other in range(world_size) if other != arguments.rank)


print(f"rank {rank} begins", flush=True)
if arguments.child:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", arguments.mark])
    command = [sys.executable, "-c", STUBBORN, arguments.mark]
    subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE).stdout.readline()
if arguments.write:
    Path("outputs", "model.txt").write_text("half trained")
    Path("logs", "script.log").write_text("a line of a log")
others = arguments.others.split(",")
mine = arguments.end if rank == arguments.rank else others[(rank - (rank > arguments.rank)) % len(others)]
if mine == "data-loader":
    import torch.utils.data  # noqa: F401  seconds, in which it is not yet where the tests want it
if rank == arguments.rank:
    while not others_are_ready():
        time.sleep(0.02)
    time.sleep(0.2)  # and they begin
    print(f"about to end: {mine}", flush=True)
else:
    Path(f"ready-{rank}").touch()
ENDS[mine]()
