"""A rank's surroundings, in a process of its own."""

import os
import subprocess
import sys
import textwrap

import pytest


def test_a_script_finds_modules_on_a_relative_pythonpath_and_beside_itself(tmp_path):
    project, ranks = tmp_path / "project", tmp_path / "ranks"
    for folder in (project / "src", project / "lib", ranks):
        folder.mkdir(parents=True)
    (project / "lib" / "__init__.py").write_text("")
    (project / "src" / "beside.py").write_text("")
    (project / "shadow.py").write_text("")
    (project / "src" / "train.py").write_text("import sys, beside, lib\nopen('path', 'w').write(repr(sys.path[0]))\n")
    env = {
        **os.environ,
        "PYTHONPATH": ".",
        "PYTHONSAFEPATH": "1",
        "TRAINYARD_RANKS_DIR": str(ranks),
        "TRAINYARD_WORLD_SIZE": "1",
        "TRAINYARD_METRICS_DIR": str(tmp_path / "records"),
    }
    command = [sys.executable, "-m", "trainyard.tasks.runtime", "./src/train.py"]
    done = subprocess.run(command, cwd=project, env=env, check=False)
    assert done.returncode == 0, (ranks / "rank-00000.log").read_text()
    assert (project / "path").read_text() == repr(str(project / "src"))


class Surroundings:
    """A rank of one script, without the rest of the pipeline."""

    def __init__(self, root):
        self.project, self.ranks = root / "project", root / "ranks"
        self.project.mkdir()
        self.ranks.mkdir()
        self.records = root / "records"

    def run(self, script, *arguments):
        """The exit status, and the log."""
        (self.project / "train.py").write_text(textwrap.dedent(script))
        env = {
            **os.environ,
            "TRAINYARD_RANKS_DIR": str(self.ranks),
            "TRAINYARD_WORLD_SIZE": "1",
            "TRAINYARD_METRICS_DIR": str(self.records),
        }
        command = [sys.executable, "-m", "trainyard.tasks.runtime", "./train.py", *arguments]
        done = subprocess.run(command, cwd=self.project, env=env, check=False, stdin=subprocess.DEVNULL)
        return done.returncode, (self.ranks / "rank-00000.log").read_text()


@pytest.fixture
def rank(tmp_path):
    return Surroundings(tmp_path)


def test_the_script_is_main_as_under_python_itself(rank, tmp_path):
    script = """
        '''What it is for.'''
        import sys
        names = {name: value for name, value in globals().items() if name.startswith("__")}
        print(__name__, __file__, __doc__, __spec__, sys.argv, sys.modules["__main__"].__dict__ is globals())
        print(type(__loader__).__name__, sorted(names))
    """
    code, log = rank.run(script, "--epochs", "3")
    python = subprocess.run(
        [sys.executable, "train.py", "--epochs", "3"], cwd=rank.project, capture_output=True, text=True, check=True
    )
    ours = log.replace("'./train.py'", "'train.py'")
    assert code == 0
    assert ours == python.stdout.replace("'__annotations__', ", "")


def test_processes_it_starts_know_its_classes_wherever_it_has_gone(rank):
    script = """
        import multiprocessing, os, pickle
        class Net: pass
        def work(queue):
            queue.put(pickle.dumps(Net()))
        if __name__ == "__main__":
            os.makedirs("elsewhere")
            os.chdir("elsewhere")
            for method in ("fork", "spawn", "forkserver"):
                context = multiprocessing.get_context(method)
                queue = context.Queue()
                worker = context.Process(target=work, args=(queue,))
                worker.start()
                print(type(pickle.loads(queue.get(timeout=60))) is Net)
                worker.join()
    """
    assert rank.run(script) == (0, "True\n" * 3)


def test_threads_and_exit_handlers_outlive_the_last_line(rank):
    script = """
        import atexit, pickle, threading, time
        class Net: pass
        def say(word):
            pickle.loads(pickle.dumps(Net()))
            print(word)
        def train():
            time.sleep(0.5)
            say("trained")
        atexit.register(say, "left")
        threading.Thread(target=train).start()
        print("last line")
    """
    assert rank.run(script) == (0, "last line\ntrained\nleft\n")


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("exit()", 0),
        ("quit(0)", 0),
        ("sys.exit(False)", 0),
        ("os._exit(0)", 0),
        ("os._exit(3)", 3),
        ("exit(3)", 3),
        ("sys.exit('no data')", 1),
        ("input()", 1),
    ],
)
def test_scripts_end_in_many_ways(rank, ending, status):
    code, _ = rank.run(f"import os, sys\n{ending}")
    assert code == status
    told = status != 0 and not ending.startswith("os._exit")
    assert [path.name for path in rank.ranks.glob("*.failure.json")] == (["rank-00000.failure.json"] if told else [])
