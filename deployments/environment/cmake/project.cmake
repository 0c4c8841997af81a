# Horovod 0.28.1 asks for C++14; the headers of PyTorch >= 2.1 need C++17.
set(CMAKE_CXX14_STANDARD_COMPILE_OPTION "-std=c++17")
set(CMAKE_CXX14_EXTENSION_COMPILE_OPTION "-std=gnu++17")

# The wheel is cached and installed into other virtual environments, so it must find Open MPI, torch and NCCL
# relative to itself (PREFIX/lib/pythonX.Y/site-packages/horovod/torch), never where it was built.
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
set(CMAKE_INSTALL_RPATH "$ORIGIN/../../../..;$ORIGIN/../../torch/lib;$ORIGIN/../../nvidia/nccl/lib")

# Open MPI's place is known. FindMPI would ask its compiler wrapper, and split the answer at spaces in paths.
set(MPI_mpi_LIBRARY "$ENV{MPI_HOME}/lib/libmpi.so" CACHE FILEPATH "")
foreach(language C CXX)
    set(MPI_${language}_COMPILER_INCLUDE_DIRS "$ENV{MPI_HOME}/include" CACHE STRING "")
    set(MPI_${language}_LIB_NAMES mpi CACHE STRING "")
endforeach()

# Horovod names the GPU architectures itself (-gencode), in a way older than CMake's own.
set(CMAKE_CUDA_ARCHITECTURES OFF)

# Without GPU operations nothing of CUDA is looked for: a toolkit that happens to be there, whole or in part,
# must not decide the build, or break it.
if(NOT "$ENV{HOROVOD_GPU_OPERATIONS}" STREQUAL "NCCL")
    set(CMAKE_CUDA_COMPILER "")
    set(CMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit ON)
    set(CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}/without_cuda")
endif()

# Horovod asks for debug information, which nobody reads here: it takes a quarter of the build's time, and the wheel
# would have 20 MB in place of one.
add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-g0>)
