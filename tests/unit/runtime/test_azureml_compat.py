"""Scripts written for azureml-core, each in a training process of its own."""

import json
import os
import subprocess
import sys

import pytest

NAMESPACE_PACKAGE = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"  # as azureml's own wheels do


class Training:
    """A folder to run scripts in, with packages that are found after the script's own modules."""

    def __init__(self, root):
        self.root = root
        self.packages = root / "site packages"
        for folder in (self.packages, root / "project", root / "ranks"):
            folder.mkdir()

    def install(self, name, text=""):
        path = self.packages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *lines):
        """The script's exit code, and what it printed."""
        (self.root / "project" / "train.py").write_text("\n".join(lines))
        log = self.root / "ranks" / "rank-00000.log"
        log.unlink(missing_ok=True)
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.packages), os.environ.get("PYTHONPATH", "")]),
            "TRAINYARD_RANKS_DIR": str(self.root / "ranks"),
            "TRAINYARD_METRICS_DIR": str(self.root / "records"),
            "TRAINYARD_WORLD_SIZE": "1",
            "TRAINYARD_RUN_ID": "run-7",
            "train_data": "/staged/points",
        }
        command = [sys.executable, "-m", "trainyard.tasks.runtime", "train.py"]
        done = subprocess.run(command, cwd=self.root / "project", env=env, check=False)
        return done.returncode, log.read_text()

    def check(self, *lines):
        """What a script that ends well printed."""
        code, log = self.run(*lines)
        assert code == 0, log
        return log.splitlines()

    def failure(self, *lines):
        """The message of the error that ends a script."""
        code, log = self.run(*lines)
        assert code == 1, log
        return json.loads((self.root / "ranks" / "rank-00000.failure.json").read_text())["message"]

    def records(self):
        """Kind, name and value of everything that the script logged."""
        lines = (self.root / "records" / "rank-00000.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        assert records[0]["kind"] == "rank"
        logged = (record for record in records if record["kind"] not in ("rank", "device"))
        return [(record["kind"], record["name"], record["value"]) for record in logged]

    def output(self, name):
        return self.root / "project" / "outputs" / name


@pytest.fixture
def training(tmp_path):
    return Training(tmp_path)


@pytest.mark.parametrize(
    "imports",
    [
        "from azureml.core.run import Run",
        "from azureml.core import Run",
        "from azureml.core import *",
        "import azureml.core; Run = azureml.core.Run",
        "import azureml.core.run; Run = azureml.core.run.Run",
        "from azureml.core import run; Run = run.Run",
    ],
)
def test_each_style_of_import_gives_the_run_whose_metrics_arrive(training, imports):
    printed = training.check(imports, "run = Run.get_context()", "print(run.id)", "run.log('loss', 0.5)")
    assert printed == ["run-7"]
    assert training.records() == [("scalar", "loss", 0.5)]


def test_what_a_script_logs_arrives_as_from_trainyard_itself(training):
    training.check(
        "from azureml.core import Run",
        "run = Run.get_context(allow_offline=False)",
        "run.log(name='loss', value=float('nan'), description='the loss', step=3)",
        "run.log('solver', 'adam')",
        "run.log_list('scores', [0.1, 0.2], 'all of them')",
        "run.log_row('classes', description='each', digit=3, recall=0.5)",
        "run.log_table('curve', {'x': [1, 2], 'y': [3, 4]}, 'a curve')",
        "run.log_table('row', {'x': 1, 'y': 'two'})",
        'matrix = \'{"data": {"class_labels": ["a", "b"], "matrix": [[1, 0], [0, 1]]}}\'',
        "run.log_confusion_matrix('confusion', matrix, description='on the test set')",
        "run.tag('quick')",
        "run.set_tags({'team': 'digits', 'quick': None})",
        "run.add_properties({'commit': '75b2082'})",
        "run.flush(timeout_seconds=5)",
        "run.complete()",
    )
    assert training.records() == [
        ("scalar", "loss", "NaN"),
        ("tag", "solver", "adam"),
        ("list", "scores", [0.1, 0.2]),
        ("row", "classes", {"digit": 3, "recall": 0.5}),
        ("table", "curve", {"x": [1, 2], "y": [3, 4]}),
        ("table", "row", {"x": [1], "y": ["two"]}),
        ("confusion_matrix", "confusion", {"class_labels": ["a", "b"], "matrix": [[1, 0], [0, 1]]}),
        ("tag", "quick", None),
        ("tag", "team", "digits"),
        ("tag", "quick", None),
        ("tag", "commit", "75b2082"),
    ]


def test_files_and_streams_and_pictures_are_kept_in_the_outputs(training):
    training.check(
        "import io, os",
        "from azureml.core.run import Run",
        "run = Run.get_context()",
        "os.makedirs('made/deep'); open('made/deep/a.txt', 'w').write('a'); open('b.png', 'wb').write(b'b')",
        "run.upload_file('outputs/a.txt', 'made/deep/a.txt')",
        "run.upload_file(name='bytes.bin', path_or_stream=io.BytesIO(b'bytes'))",
        "run.upload_file('words.txt', io.StringIO('words'), datastore_name='blobs')",
        "run.upload_files(['c.txt', 'd.png'], ['made/deep/a.txt', 'b.png'])",
        "run.upload_folder('outputs/all', path='made')",
        "run.log_image('picture', path='b.png', description='b')",
    )
    texts = {"a.txt": "a", "bytes.bin": "bytes", "words.txt": "words", "c.txt": "a", "d.png": "b"}
    assert {name: training.output(name).read_text() for name in texts} == texts
    assert training.output("all/deep/a.txt").read_text() == "a"
    assert training.output("images/picture.png").read_bytes() == b"b"
    assert training.records() == [("image", "picture", "images/picture.png")]
    assert "datastore_name='blobs' is ignored" in (training.root / "ranks" / "rank-00000.log").read_text()


def test_a_folder_that_does_not_exist_is_an_error(training):
    message = training.failure("from azureml.core import Run", "Run.get_context().upload_folder('outputs/all', 'made')")
    assert message == "upload_folder('outputs/all'): 'made' is not a folder."


def test_older_names_and_checks_for_a_run_by_hand(training):
    printed = training.check(
        "import azureml.core",
        "from azureml.core.run import Run, _OfflineRun",
        "run = Run.get_submitted_run()",
        "print(isinstance(run, Run), isinstance(run, _OfflineRun), run.id.startswith('OfflineRun'), run.parent)",
        "print(run.get_context().id, run.input_datasets['train_data'], hasattr(run, 'experiment'))",
        "print(azureml.core.VERSION == azureml.core.__version__, hasattr(azureml.core, 'Workspace'))",
    )
    assert printed == ["True False False None", "run-7 /staged/points False", "True False"]


def test_an_input_that_was_not_given_is_named(training):
    message = training.failure("from azureml.core import Run", "Run.get_context().input_datasets['test_data']")
    assert "test_data: no such input" in message


@pytest.mark.parametrize("attribute", ["experiment", "get_metrics"])
def test_what_a_run_cannot_do_is_refused_with_what_it_can(training, attribute):
    message = training.failure("from azureml.core import Run", f"Run.get_context().{attribute}")
    assert message.startswith(f"azureml's Run.{attribute} is not supported by Trainyard")
    assert "Supported are: add_properties, complete, flush, get_context, " in message
    assert ("data comes as a path" in message) == (attribute == "experiment")


@pytest.mark.parametrize(
    "line",
    ["from azureml.core import Dataset", "import azureml.core.Dataset", "import azureml.core; azureml.core.Dataset"],
)
def test_what_the_module_does_not_have_is_refused_with_what_it_has(training, line):
    message = training.failure(line)
    assert "Trainyard's stand-in for azureml.core has no 'Dataset': it has Run, VERSION" in message


def test_a_name_that_the_run_module_does_not_have_is_refused(training):
    assert "azureml.core.run has no 'Runs': it has Run" in training.failure("from azureml.core.run import Runs")


def test_other_packages_of_the_namespace_are_missing_as_ever(training):
    assert training.failure("import azureml.telemetry") == "No module named 'azureml.telemetry'"
    assert training.check("from importlib.util import find_spec", "print(find_spec('azureml.widgets'))") == ["None"]


@pytest.mark.parametrize("root", [None, NAMESPACE_PACKAGE], ids=["namespace", "package"])
def test_an_installed_azureml_core_is_left_alone(training, root):
    if root is not None:
        training.install("azureml/__init__.py", root)
    training.install("azureml/core/__init__.py", "from azureml.core.run import Run\n")
    training.install("azureml/core/run.py", "class Run:\n    real = True\n")
    printed = training.check(
        "import azureml.core.run",
        "from azureml.core import Run",
        "print(Run.real, azureml.core.run.Run is Run, hasattr(azureml.core, 'VERSION'))",
    )
    assert printed == ["True True False"]
    assert training.failure("import azureml.core.dataset") == "No module named 'azureml.core.dataset'"


def test_nothing_is_added_to_an_installed_azureml_core_that_is_broken(training):
    training.install("azureml/core/__init__.py", "import azureml_dependency\n")
    assert training.failure("from azureml.core import Run") == "No module named 'azureml_dependency'"
    training.install("azureml/core/__init__.py")
    assert training.failure("from azureml.core.run import Run") == "No module named 'azureml.core.run'"


@pytest.mark.parametrize("root", [None, NAMESPACE_PACKAGE], ids=["namespace", "package"])
def test_core_is_added_where_only_other_packages_of_the_namespace_are_installed(training, root):
    if root is not None:
        training.install("azureml/__init__.py", root)
    training.install("azureml/telemetry/__init__.py", "real = True\n")
    printed = training.check(
        "import azureml.telemetry",
        "from azureml.core.run import Run",
        "import azureml.core",
        "Run.get_context().log('loss', 0.5)",
        "print(azureml.telemetry.real, azureml.core.Run is Run)",
    )
    assert printed == ["True True"]
    assert training.records() == [("scalar", "loss", 0.5)]


def test_a_module_of_the_projects_own_by_that_name_is_left_alone(training):
    (training.root / "project" / "azureml.py").write_text("mine = True\n")
    assert training.check("import azureml", "print(azureml.mine)") == ["True"]
    assert "'azureml' is not a package" in training.failure("from azureml.core import Run")


def test_workers_find_it_and_what_they_log_arrives_however_they_are_started(training):
    """Spawned workers import the script again, its ``azureml`` with it."""
    training.check(
        "import multiprocessing",
        "from azureml.core.run import Run",
        "run = Run.get_context()",
        "def work(method):",
        "    Run.get_context().log(method, 1)",
        "if __name__ == '__main__':",
        "    for method in ('fork', 'spawn', 'forkserver'):",
        "        worker = multiprocessing.get_context(method).Process(target=work, args=(method,))",
        "        worker.start()",
        "        worker.join()",
    )
    assert training.records() == [("scalar", "fork", 1), ("scalar", "spawn", 1), ("scalar", "forkserver", 1)]
