from pathlib import Path

import pytest

from trainyard.deployments.environment.cuda import choose_gpu_operations, find_toolkit


@pytest.fixture
def toolkit(tmp_path):
    """Makes something that looks like a CUDA toolkit."""

    def make(name, version="13.0", header=True):
        home = tmp_path / name
        (home / "bin").mkdir(parents=True)
        nvcc = home / "bin" / "nvcc"
        nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.88'\n")
        nvcc.chmod(0o755)
        if header:
            (home / "include").mkdir()
            (home / "include" / "cuda_runtime.h").write_text("")
        return home

    return make


def test_a_cpu_build_of_torch_has_none(toolkit):
    gpu = choose_gpu_operations(None, None, {"CUDA_HOME": str(toolkit("cuda"))})
    assert gpu.toolkit is None
    assert "CPU build" in gpu.reason


def test_a_cuda_build_of_torch_with_a_toolkit_has_nccl(toolkit):
    home = toolkit("cuda")
    gpu = choose_gpu_operations("13.0", Path("/nccl"), {"CUDA_HOME": str(home), "HOROVOD_NCCL_HOME": "/mine"})
    assert (gpu.toolkit.home, gpu.toolkit.version, gpu.nccl_home) == (home, "13.0", Path("/nccl"))
    assert gpu.settings == {"HOROVOD_NCCL_HOME": "/mine"}


def test_a_toolkit_of_another_major_version_is_not_used(toolkit):
    gpu = choose_gpu_operations("13.0", None, {"CUDA_HOME": str(toolkit("cuda", "12.4"))})
    assert gpu.toolkit is None
    assert "torch has CUDA 13.0" in gpu.reason
    assert "is 12.4" in gpu.reason


def test_horovods_own_variable_comes_first(toolkit):
    first, second = toolkit("first"), toolkit("second")
    assert find_toolkit({"CUDA_HOME": str(second), "HOROVOD_CUDA_HOME": str(first)}).home == first


def test_nvcc_on_path_leads_to_its_toolkit(toolkit):
    home = toolkit("cuda", "99.1")
    assert find_toolkit({"PATH": str(home / "bin")}).version == "99.1"


def test_a_wrapper_script_or_a_half_toolkit_is_passed_over(toolkit):
    half = toolkit("half", header=False)
    whole = toolkit("whole")
    assert find_toolkit({"CUDA_HOME": str(half), "CUDA_PATH": str(whole)}).home == whole
