import subprocess
import sys

import trainyard


def test_every_public_name_resolves():
    for name in trainyard.__all__:
        assert getattr(trainyard, name) is not None


def test_all_and_the_lazy_table_name_the_same():
    assert sorted(trainyard.__all__) == sorted([*trainyard._HOMES, "errors"])


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(trainyard, "no_such_name")


def imported_by(code):
    """Top-level modules that a fresh interpreter holds after some code."""
    script = f"{code}\nimport sys; print(' '.join(sorted(name for name in sys.modules if '.' not in name)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_training_script_imports_neither_prefect_nor_pydantic():
    heavy = {"prefect", "pydantic", "torch", "numpy", "fsspec", "onnx", "onnxruntime"}
    assert not heavy & imported_by("from trainyard import Run; Run.get_context")


def test_the_orchestrating_process_does_not_import_what_only_a_stage_needs():
    code = "from trainyard import training_pipeline, PyTorch, OnnxExport, OrtValidation"
    assert not {"torch", "onnx", "onnxruntime", "horovod", "mpi4py", "matplotlib", "s3fs"} & imported_by(code)
