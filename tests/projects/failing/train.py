"""A rank that ends as the tests ask it to, while the other ranks do what the tests ask them to."""

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

parser = argparse.ArgumentParser()
parser.add_argument("--end", default="nothing")  # how the chosen rank ends
parser.add_argument("--rank", type=int, default=0)  # the chosen rank
parser.add_argument("--others", default="wait")  # what the other ranks do meanwhile
parser.add_argument("--child", action="store_true")  # each rank first starts a child that does not want to go
parser.add_argument("--mark", default="")
arguments = parser.parse_args()
rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("RANK", "0")))

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
}

print(f"rank {rank} begins", flush=True)
if arguments.child:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", arguments.mark])
    command = [sys.executable, "-c", STUBBORN, arguments.mark]
    subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE).stdout.readline()
if rank == arguments.rank:
    time.sleep(1.0)  # until the others are at what they do
    print(f"about to end: {arguments.end}", flush=True)
    ENDS[arguments.end]()
else:
    ENDS[arguments.others]()
