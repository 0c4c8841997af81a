"""The real CMake, on a project that asks for what Horovod asks for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainyard.deployments.environment.recipe import CMAKE_FOLDER

CMAKE = Path(sys.executable).parent / "cmake"
PROJECT = """
cmake_minimum_required(VERSION 3.13)
project(sample CXX)
set(CMAKE_CXX_STANDARD 14)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_MODULE_PATH ${CMAKE_MODULE_PATH} "${PROJECT_SOURCE_DIR}/cmake/Modules/")
find_package(CUDAToolkit)
find_package(Pytorch REQUIRED)
message(STATUS "toolkit=[${CUDAToolkit_FOUND}] cuda=[${Pytorch_CUDA}] libraries=[${Pytorch_LIBRARIES}]")
add_library(sample SHARED sample.cc)
target_link_libraries(sample "${CMAKE_CURRENT_SOURCE_DIR}/libother.so")
"""
FIND_PYTORCH = """
set(Pytorch_FOUND TRUE)
set(Pytorch_CUDA TRUE)
set(Pytorch_LIBRARIES /cuda/libtorch.so /x/libtorch_cuda.so /x/libc10_cuda.so FOUND_LIB_cudart-NOTFOUND)
"""


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    if not CMAKE.exists():
        pytest.fail(f"no cmake beside {sys.executable}: the locked environment has it (make setup)")
    if not (shutil.which("c++") and shutil.which("make")):
        pytest.skip("no c++ or no make on PATH")
    source = tmp_path_factory.mktemp("sample")
    (source / "CMakeLists.txt").write_text(PROJECT)
    (source / "sample.cc").write_text("int sample() { return 0; }\n")
    (source / "libother.so").write_text("")
    modules = source / "cmake" / "Modules"
    modules.mkdir(parents=True)
    (modules / "FindPytorch.cmake").write_text(FIND_PYTORCH)
    return configure(source)


def configure(source, **variables):
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "CMAKE_TOOLCHAIN_FILE": str(CMAKE_FOLDER / "toolchain.cmake")}
    argv = [CMAKE, "-S", source, "-B", source / "build", "-G", "Unix Makefiles"]
    ended = subprocess.run(argv, env={**env, **variables}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, source / "build" / "CMakeFiles" / "sample.dir"


def test_a_project_that_asks_for_cpp14_is_compiled_as_cpp17(configured):
    flags = (configured[1] / "flags.make").read_text()
    assert "-std=c++17" in flags
    assert "c++14" not in flags


def test_the_library_finds_open_mpi_and_torch_relative_to_itself(configured):
    link = (configured[1] / "link.txt").read_text()
    assert "$ORIGIN/../../../..:" in link.replace("\\$", "$")
    assert "$ORIGIN/../../torch/lib" in link.replace("\\$", "$")
    assert f"-rpath,{configured[1].parents[2]}" not in link


def test_without_gpu_operations_nothing_of_cuda_decides(configured):
    assert "toolkit=[] cuda=[FALSE] libraries=[/cuda/libtorch.so]" in configured[0]
