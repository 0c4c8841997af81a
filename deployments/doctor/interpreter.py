"""Python, and the compiler that builds Horovod."""

import platform
import sys

from trainyard.deployments.doctor.check import Check
from trainyard.deployments.environment.bootstrap import unsupported
from trainyard.deployments.environment.prerequisites import CXX_COMPILERS, find_compiler


def check_python() -> Check:
    """Is this Python one that Trainyard runs on?"""
    found = f"{platform.python_version()} ({sys.executable})"
    problem = unsupported(sys.version_info[:2], sys.platform)
    return Check("Python", "fail", found, problem) if problem else Check("Python", "ok", found)


def check_compiler() -> Check:
    """Is there a compiler to build Horovod with?"""
    compiler = find_compiler("CXX", CXX_COMPILERS)
    if compiler:
        return Check("C++ compiler", "ok", compiler)
    remedy = "needed to build Horovod, not to train: apt install g++, dnf install gcc-c++, or set CXX"
    return Check("C++ compiler", "warn", "none on PATH", remedy)
