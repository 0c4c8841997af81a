import re

import pytest

from trainyard.tasks.training.packages.requirements import read_requirements


def texts(lines):
    return [line.text for line in lines]


@pytest.fixture
def read(tmp_path):
    source = tmp_path / "project"
    source.mkdir()

    def read(*packages, file=None, **files):
        for name, text in files.items():
            (source / name.replace("__", "/")).with_suffix(".txt").write_text(text)
        return read_requirements(source, packages, file)

    read.source = source
    return read


def test_packages_and_files_become_one_list(read):
    found = read(
        "scikit-learn >= 1.5",
        file="a.txt",
        a="""\
# comment
numpy<3  # why
pandas[excel] >= 2, \\
    < 4 ; python_version > "3.8"

-r b.txt
-c c.txt
--extra-index-url=https://example.org/simple
-i https://example.org/main
--pre
lib==1.0 --hash=sha256:aa --hash=sha256:bb
""",
        b="tool @ https://example.org/tool-1.0-py3-none-any.zip\n",
        c="scipy<2\n",
    )
    assert found.problems == []
    assert texts(found.wanted) == [
        "scikit-learn>=1.5",
        "numpy<3",
        'pandas[excel]<4,>=2; python_version > "3.8"',
        "tool @ https://example.org/tool-1.0-py3-none-any.zip",
        "lib==1.0 --hash=sha256:aa --hash=sha256:bb",
    ]
    assert [line.origin for line in found.wanted][1:3] == ["a.txt, line 2", "a.txt, line 3"]
    assert found.wanted[-1].origin == "a.txt, line 11"
    assert texts(found.constraints) == ["scipy<2"]
    assert found.options == [
        "--extra-index-url https://example.org/simple",
        "--index-url https://example.org/main",
        "--pre",
    ]


def test_a_constraint_file_may_include_others(read):
    found = read(file="a.txt", a="-c c.txt\n", c="-r d.txt\n", d="x<2\n")
    assert found.wanted == [] and texts(found.constraints) == ["x<2"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("-e .", "--editable|-e is not supported"),
        ("--editable=./lib", "--editable is not supported"),
        ("--target=/tmp/x", "--target is not supported"),
        ("--global-option=x", "--global-option is not supported"),
        ("./lib", "is a local path"),
        ("/opt/x.whl", "is a local path"),
        ("x-1.0-py3-none-any.whl", "is a local path"),
        ("x @ file:///opt/x.whl", "is a local path"),
        ("scikit learn", "is no requirement"),
        ("git+https://example.org/x", "is no requirement"),
        ("x==1 --config-settings=a=b", "only --hash is supported"),
        ("--index-url https://me:secret@example.org/simple", "a password is in the address"),
        ("x @ https://me:secret@example.org/x.zip", "a password is in the address"),
        ("-r missing.txt", "'missing.txt' is not a file"),
        ("-r ../outside.txt", "lies outside the source directory"),
        ("-r a.txt", "includes itself"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_place(read, line, problem):
    (read.source.parent / "outside.txt").write_text("x\n")
    found = read(file="a.txt", a=f"numpy\n{line}\n")
    assert len(found.problems) == 1
    assert "a.txt, line 2" in found.problems[0]
    assert re.search(problem, found.problems[0])
    assert "secret" not in found.problems[0]
    assert texts(found.wanted) == ["numpy"]


@pytest.mark.parametrize("file", ["missing.txt", "../outside.txt", "/etc/hostname"])
def test_the_file_itself_must_be_in_the_source(read, file):
    (read.source.parent / "outside.txt").write_text("x\n")
    (problem,) = read(file=file).problems
    assert problem.startswith("pip_requirements_file")


def test_options_are_no_packages(read):
    (problem,) = read("--pre").problems
    assert "put options into the requirements file" in problem


def test_variables_may_stand_for_credentials(read):
    found = read(file="a.txt", a="--index-url https://${USER}:${TOKEN}@example.org/simple\n")
    assert found.problems == []
    assert found.options == ["--index-url https://${USER}:${TOKEN}@example.org/simple"]


def test_all_problems_are_found_at_once(read):
    assert len(read("a b", "./c", file="nothing.txt").problems) == 3


def test_a_marker_that_is_false_here_does_not_count(read):
    found = read('torch<1; python_version < "3"', "numpy")
    assert [line.counts for line in found.wanted] == [False, True]
