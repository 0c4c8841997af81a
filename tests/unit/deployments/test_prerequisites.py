import sysconfig

from trainyard.deployments.environment import prerequisites
from trainyard.deployments.environment.prerequisites import (
    CXX_COMPILERS,
    find_compiler,
    missing_prerequisites,
)


def make_program(folder, name):
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return str(program)


def test_the_first_known_compiler_is_taken(tmp_path):
    expected = make_program(tmp_path, "g++")
    make_program(tmp_path, "clang++")
    assert find_compiler("CXX", CXX_COMPILERS, {"PATH": str(tmp_path)}) == expected


def test_the_variable_decides_even_where_it_names_nothing(tmp_path):
    make_program(tmp_path, "g++")
    expected = make_program(tmp_path, "my-c++")
    assert find_compiler("CXX", CXX_COMPILERS, {"PATH": str(tmp_path), "CXX": "my-c++ -O2"}) == expected
    assert find_compiler("CXX", CXX_COMPILERS, {"PATH": str(tmp_path), "CXX": "none"}) is None


def test_a_c_compiler_is_needed_too(tmp_path):
    make_program(tmp_path, "c++")
    make_program(tmp_path, "make")
    (problem,) = missing_prerequisites({"PATH": str(tmp_path)})
    assert problem.startswith("no C compiler was found (looked for cc, gcc, clang on PATH)")


def test_missing_headers_name_the_package(tmp_path, monkeypatch):
    for name in ("c++", "cc", "make"):
        make_program(tmp_path, name)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "nowhere"))
    (problem,) = missing_prerequisites({"PATH": str(tmp_path)})
    assert f"{tmp_path / 'nowhere' / 'Python.h'}" in problem
    assert f"python{sysconfig.get_python_version()}-dev" in problem


def test_a_missing_venv_module_names_the_package(tmp_path, monkeypatch):
    for name in ("c++", "cc", "make"):
        make_program(tmp_path, name)
    monkeypatch.setattr(prerequisites, "find_spec", lambda name: None if name == "ensurepip" else object())
    (problem,) = missing_prerequisites({"PATH": str(tmp_path)})
    assert f"apt install python{sysconfig.get_python_version()}-venv" in problem
