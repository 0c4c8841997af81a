import os
from dataclasses import replace
from pathlib import Path

import pytest

from trainyard.deployments.environment.cuda import CudaToolkit, GpuOperations
from trainyard.deployments.environment.horovod import (
    default_wheel_cache,
    explain_build_failure,
    wheel_command,
)
from trainyard.deployments.environment.inspection import Environment
from trainyard.deployments.environment.recipe import CMAKE_FOLDER, Recipe, build_environment, count_jobs

CPU = Recipe(
    torch="2.13.0+cpu",
    openmpi="5.0.11",
    python_abi="cpython-311-x86_64-linux-gnu",
    libc="glibc-2.36",
    vector_flags=("avx", "f16c", "fma"),
    gpu=GpuOperations("none"),
)
CUDA = replace(
    CPU,
    torch="2.13.0+cu130",
    gpu=GpuOperations("all", CudaToolkit(Path("/cuda"), "13.0"), Path("/site/nvidia/nccl")),
)
ENVIRONMENT = Environment(
    python=Path("/venv/bin/python"),
    python_abi=CPU.python_abi,
    torch=CPU.torch,
    torch_cuda=None,
    openmpi=CPU.openmpi,
    mpi_home=Path("/venv"),
    nccl_home=None,
)


def test_the_key_can_be_read():
    readable = "horovod-0.28.1_torch-2.13.0+cpu_openmpi-5.0.11_cpython-311-x86_64-linux-gnu_cpu_"
    assert CPU.key.startswith(readable)
    assert "_nccl-cuda13.0_" in CUDA.key
    assert "/" not in CPU.key
    assert CPU.key == replace(CPU).key


@pytest.mark.parametrize(
    "change",
    [
        {"torch": "2.13.0+cu130"},
        {"openmpi": "5.0.12"},
        {"python_abi": "cpython-312-x86_64-linux-gnu"},
        {"python_abi": "cpython-311-aarch64-linux-gnu"},
        {"libc": "glibc-2.41"},
        {"vector_flags": ("avx",)},
        {"gpu": CUDA.gpu},
        {"gpu": replace(CPU.gpu, settings={"HOROVOD_BUILD_CUDA_CC_LIST": "90"})},
    ],
    ids=str,
)
def test_the_key_changes_with_what_decides(change):
    assert replace(CPU, **change).key != CPU.key


@pytest.mark.parametrize("gpu", [GpuOperations("said otherwise"), replace(CPU.gpu, nccl_home=Path("/elsewhere"))])
def test_the_key_does_not_change_with_words_or_places(gpu):
    assert replace(CPU, gpu=gpu).key == CPU.key


def test_the_environment_of_a_cpu_build():
    base = {
        "PATH": "/usr/bin",
        "HOME": "/home/me",
        "CXX": "clang++",
        "HOROVOD_WITHOUT_MPI": "1",
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "MAKEFLAGS": "-j64 --jobserver-auth=3,4",
        "MAKELEVEL": "1",
        "CMAKE_GENERATOR": "Ninja",
        "PYTHONPATH": "/mine",
    }
    assert build_environment(CPU, ENVIRONMENT, num_jobs=4, nccl_lib=None, base=base) == {
        "PATH": os.pathsep.join(["/venv/bin", "/venv/bin", "/usr/bin"]),
        "HOME": "/home/me",
        "CXX": "clang++",
        "MPI_HOME": "/venv",
        "MAKEFLAGS": "-j4",
        "CMAKE_TOOLCHAIN_FILE": str(CMAKE_FOLDER / "toolchain.cmake"),
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_BUILD_ARCH_FLAGS": "-mavx -mf16c -mfma",
    }


def test_what_a_cuda_build_adds():
    cpu = build_environment(CPU, ENVIRONMENT, num_jobs=4, nccl_lib=None, base={})
    cuda = build_environment(CUDA, ENVIRONMENT, num_jobs=4, nccl_lib=Path("/scratch/nccl"), base={})
    assert {name: value for name, value in cuda.items() if name not in cpu} == {
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_CUDA_HOME": "/cuda",
        "CUDA_HOME": "/cuda",
        "HOROVOD_NCCL_LINK": "SHARED",
        "HOROVOD_NCCL_HOME": "/site/nvidia/nccl",
        "HOROVOD_NCCL_INCLUDE": "/site/nvidia/nccl/include",
        "HOROVOD_NCCL_LIB": "/scratch/nccl",
    }


def test_settings_of_the_person_win():
    settings = {"HOROVOD_NCCL_HOME": "/mine", "HOROVOD_BUILD_CUDA_CC_LIST": "90"}
    recipe = replace(CUDA, gpu=replace(CUDA.gpu, settings=settings))
    env = build_environment(recipe, ENVIRONMENT, num_jobs=1, nccl_lib=None, base={})
    assert settings.items() <= env.items()


def test_no_flags_are_made_up_for_other_processors():
    env = build_environment(replace(CPU, vector_flags=()), ENVIRONMENT, num_jobs=1, nccl_lib=None, base={})
    assert "HOROVOD_BUILD_ARCH_FLAGS" not in env


def test_at_least_one_job():
    assert 1 <= count_jobs() <= len(os.sched_getaffinity(0))


def test_the_wheel_is_built_with_what_is_installed_and_past_the_cache_of_pip():
    argv = wheel_command(Path("/venv/bin/python"), Path("/scratch"))
    assert argv[:4] == [Path("/venv/bin/python"), "-m", "pip", "wheel"]
    assert {"--no-cache-dir", "--no-build-isolation", "--no-deps"} <= set(argv)


def test_the_cache_is_where_caches_are():
    assert default_wheel_cache({"XDG_CACHE_HOME": "/cache"}) == Path("/cache/trainyard/wheels")
    assert default_wheel_cache({}) == Path.home() / ".cache" / "trainyard" / "wheels"
    assert default_wheel_cache({"XDG_CACHE_HOME": ""}) == Path.home() / ".cache" / "trainyard" / "wheels"


def test_a_broken_build_shows_the_first_error(tmp_path):
    output = (
        "Building wheel for horovod (pyproject.toml): started\n"
        "  x.h:1:10: fatal error: Python.h: No such file or directory\n"
        "  y.h:2:1: error: another\n"
        "ERROR: Failed building wheel for horovod\n"
    )
    message = explain_build_failure(1, output, tmp_path / "log")
    assert "could not be built: x.h:1:10: fatal error: Python.h: No such file or directory;" in message


def test_what_cmake_says_is_on_the_line_after_where(tmp_path):
    output = (
        "Building wheel for horovod (pyproject.toml): started\n"
        "  CMake Error at FindPackageHandleStandardArgs.cmake:290 (message):\n"
        "    Could NOT find MPI (missing: MPI_CXX_FOUND)\n"
    )
    assert "(message): Could NOT find MPI (missing: MPI_CXX_FOUND);" in explain_build_failure(1, output, tmp_path)


def test_a_build_that_could_not_begin_shows_what_pip_says(tmp_path):
    output = "WARNING: ... NewConnectionError ...\nERROR: No matching distribution found for horovod==0.28.1\n"
    assert "cannot reach the Python package index" in explain_build_failure(1, output, tmp_path / "log")
