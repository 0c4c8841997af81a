# Horovod's own FindPytorch asks for CUDA kernels as soon as torch is a CUDA build and /usr/local/cuda exists, even
# where no GPU operations are wanted. This one, found before it, takes its answer and leaves the CUDA half out.
include("${PROJECT_SOURCE_DIR}/cmake/Modules/FindPytorch.cmake")
set(Pytorch_CUDA FALSE)
list(FILTER Pytorch_LIBRARIES EXCLUDE REGEX "(libcudart|libc10_cuda|libtorch_cuda)[^/]*$|NOTFOUND$")
