"""What a machine must have before anything is installed, and what to do where it is missing."""

import os
import shutil
import sysconfig
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

CXX_COMPILERS = ("c++", "g++", "clang++")
C_COMPILERS = ("cc", "gcc", "clang")


def find_compiler(variable: str, names: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> str | None:
    """Path of a compiler: the one that the variable names, else the first of the names on PATH.

    Args:
        variable: ``CXX`` or ``CC``; may hold arguments after the program's name, as make allows.
        names: Programs to look for where the variable is not set.
        environ: Where ``PATH`` and the variable are read.
    """
    chosen = environ.get(variable, "").split()[:1]
    found = (shutil.which(name, path=environ.get("PATH", "")) for name in chosen or names)
    return next(filter(None, found), None)


def missing_prerequisites(environ: Mapping[str, str] = os.environ) -> list[str]:
    """One sentence, with the remedy, for each thing that is missing; empty where nothing is."""
    return [problem for problem in (_compiler(environ), _make(environ), _venv_module(), _python_headers()) if problem]


def _compiler(environ: Mapping[str, str]) -> str:
    cxx = find_compiler("CXX", CXX_COMPILERS, environ)
    if cxx and find_compiler("CC", C_COMPILERS, environ):
        return ""
    kind = "C" if cxx else "C++"
    return (
        f"no {kind} compiler was found (looked for {_looked_for(kind, environ)} on PATH), and Horovod is built from "
        "source; install one: apt install g++ (Debian, Ubuntu), dnf install gcc-c++ (Fedora, RHEL), "
        "or without root conda install -c conda-forge cxx-compiler; or set CC and CXX"
    )


def _looked_for(kind: str, environ: Mapping[str, str]) -> str:
    variable, names = ("CC", C_COMPILERS) if kind == "C" else ("CXX", CXX_COMPILERS)
    return f"{variable}={environ[variable]}" if environ.get(variable) else ", ".join(names)


def _make(environ: Mapping[str, str]) -> str:
    if shutil.which("make", path=environ.get("PATH", "")):
        return ""
    return "make was not found on PATH, and Horovod's build runs it; install it: apt install make, or dnf install make"


def _venv_module() -> str:
    if find_spec("venv") and find_spec("ensurepip"):
        return ""
    version = sysconfig.get_python_version()
    return (
        f"this Python cannot make virtual environments (no venv or ensurepip module); "
        f"install it: apt install python{version}-venv (Debian, Ubuntu), or name another Python with PYTHON=..."
    )


def _python_headers() -> str:
    header = Path(sysconfig.get_path("include"), "Python.h")
    if header.exists():
        return ""
    version = sysconfig.get_python_version()
    return (
        f"Python's C headers are missing ({header}), and Horovod is built against them; install them: "
        f"apt install python{version}-dev (Debian, Ubuntu), dnf install python{version}-devel (Fedora, RHEL), "
        "or name another Python with PYTHON=..."
    )
