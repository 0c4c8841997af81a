# Horovod's setup.py takes no CMake arguments; CMake reads the path of this file from the environment
# (CMAKE_TOOLCHAIN_FILE), and so project.cmake runs right after each project() of Horovod's build.
set(CMAKE_PROJECT_INCLUDE "${CMAKE_CURRENT_LIST_DIR}/project.cmake")
