"""What needs a GPU, and what is refused without one."""

from pathlib import Path

import pytest

from tests.e2e.conftest import small_estimator
from trainyard.tasks.training.preflight import training_problems

DRIVER = Path("/dev/nvidiactl")


@pytest.fixture(scope="module")
def cuda():
    import torch

    if not torch.cuda.is_available():
        if DRIVER.exists():
            pytest.fail(f"a GPU is here ({DRIVER}), and torch {torch.__version__} does not see it")
        pytest.skip(f"no CUDA device, and no {DRIVER}")


def test_use_gpu_is_accepted_where_there_is_one(cuda, linear_project, points):
    assert training_problems(small_estimator(linear_project, points, use_gpu=True)) == []


def test_a_script_sees_the_gpu_it_asked_for(cuda, prefect_server, home, linear_project, points):
    from trainyard import training_pipeline

    script = linear_project / "train.py"
    script.write_text(script.read_text() + '\nrun.log("devices", torch.cuda.device_count())\n')
    seen = training_pipeline(small_estimator(linear_project, points, use_gpu=True), export=None)
    hidden = training_pipeline(small_estimator(linear_project, points, use_gpu=False), export=None)
    assert seen.metrics["devices"] >= 1
    assert hidden.metrics["devices"] == 0


def test_horovod_was_built_with_nccl(cuda):
    from horovod import torch as hvd

    assert hvd.nccl_built(), "Horovod was built without NCCL on a machine that has a GPU"


def test_use_gpu_without_a_device_is_refused(linear_project, points):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    (problem,) = training_problems(small_estimator(linear_project, points, use_gpu=True))
    assert "no CUDA device" in problem


def test_parity_on_the_gpu(cuda, tmp_path):
    """TF32 is off, so float32 is float32; every node group that can runs on the device, and the report says so."""
    import onnxruntime

    from tests.unit.onnx_models import images, make_context, npz, program, put_bundle, put_files
    from trainyard import OrtValidation
    from trainyard.tasks.validation.report import ValidationReport
    from trainyard.tasks.validation.validate import validate_model

    provider = "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        pytest.skip(f"onnxruntime {onnxruntime.__version__} has no {provider}: install onnxruntime-gpu")
    context = make_context(tmp_path)
    files = {"model.pt2": program(), "validation_samples.npz": npz(images=images(300))}
    outputs = put_files(context, tmp_path / "outputs", files)
    settings = OrtValidation(providers=(provider, "CPUExecutionProvider"))
    product = validate_model(settings, put_bundle(context, tmp_path, program()), outputs, context)
    report = ValidationReport.model_validate_json(context.store.read_bytes(product.report))
    assert {entry.provider for entry in report.parity} == set(settings.providers)
    assert report.footprint[0].nodes[provider] > 0
