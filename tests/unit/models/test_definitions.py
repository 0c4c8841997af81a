import subprocess
import sys
import textwrap

import pytest

# In a process of its own: the definitions become the process's __main__.
FIND = """
import sys
from pathlib import Path
from trainyard.tasks.models.definitions import find_in_main

found = find_in_main(Path(sys.argv[1]), sys.argv[2])
print(found.__module__, found().value)
"""

SCRIPT = '''
"""A training script without a guard."""
import argparse
from collections import namedtuple

try:
    import no_such_package
except ImportError:
    no_such_package = None

VALUE = 3
Size = namedtuple("Size", "width height")
if no_such_package is None:
    FACTOR = 2
parser = argparse.ArgumentParser()
arguments = parser.parse_args(["never"])
derived = arguments.value + 1

class Net:
    @property
    def value(self):
        return VALUE * FACTOR * Size(1, 1).width

raise SystemExit("the training ran again")
'''


@pytest.fixture
def find(tmp_path):
    def run(name, **scripts):
        for script, text in scripts.items():
            (tmp_path / f"{script}.py").write_text(textwrap.dedent(text))
        command = [sys.executable, "-c", FIND, str(tmp_path), name]
        return subprocess.run(command, capture_output=True, text=True)

    return run


def test_only_definitions_of_the_script_are_run(find):
    done = find("Net", train=SCRIPT, broken="class Net(:")
    assert done.stdout == "__main__ 6\n", done.stderr


def test_a_class_that_nobody_or_everybody_defines(find):
    assert "no script of the source directory defines it" in find("Other", train=SCRIPT).stderr
    assert "again.py, train.py of the source directory define it" in find("Net", train=SCRIPT, again=SCRIPT).stderr
