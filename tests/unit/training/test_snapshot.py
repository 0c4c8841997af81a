import os
import shutil
import subprocess

import pytest

from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.training.snapshot import left_out, size_warning, snapshot_source, source_files


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "project"
    (folder / "lib" / "__pycache__").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "data").mkdir()
    for name in ("train.py", "lib/model.py", "lib/__pycache__/model.pyc", ".git/HEAD", "data/big.bin", "notes.tmp"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def snapshot(tmp_path):
    store = ArtifactStore(str(tmp_path / "store"))
    return lambda source: {entry.path for entry in store.list_tree(snapshot_source(source, store)).entries}


def test_what_is_nobodys_source_is_left_out(source, snapshot):
    assert snapshot(source) == {"train.py", "lib/model.py", "data/big.bin", "notes.tmp"}


@pytest.mark.parametrize("name", [".gitignore", ".amlignore"])
def test_ignore_files_are_honoured(source, snapshot, name):
    (source / name).write_text("data/\n*.tmp\n")
    assert snapshot(source) == {"train.py", "lib/model.py", name}


def test_a_pattern_may_be_taken_back(source, snapshot):
    (source / ".gitignore").write_text("*.tmp\n!notes.tmp\n")
    assert "notes.tmp" in snapshot(source)


def test_a_link_inside_counts_as_its_target(source, snapshot):
    (source / "same.py").symlink_to("train.py")
    assert "same.py" in snapshot(source)


def test_a_link_that_leaves_the_directory_is_refused(source, snapshot, tmp_path):
    (tmp_path / "secret").write_text("x")
    (source / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidInputError, match="outside the source directory"):
        snapshot(source)


def test_a_link_that_leads_to_itself_is_refused(source, snapshot):
    (source / "a").symlink_to("b")
    (source / "b").symlink_to("a")
    with pytest.raises(InvalidInputError, match="link that cannot be followed"):
        snapshot(source)


def test_the_digest_depends_on_bytes_names_and_modes_alone(source, tmp_path):
    store = ArtifactStore(str(tmp_path / "store"))
    before = snapshot_source(source, store).sha256
    os.utime(source / "train.py", (0, 0))
    (source / "lib" / "__pycache__" / "model.pyc").write_text("other")
    assert snapshot_source(source, store).sha256 == before
    (source / "train.py").write_text("train.py ")
    assert snapshot_source(source, store).sha256 != before


def test_a_link_that_is_ignored_may_lead_anywhere(source, snapshot, tmp_path):
    (tmp_path / "weights").write_text("x")
    (source / "weights.bin").symlink_to(tmp_path / "weights")
    (source / ".gitignore").write_text("weights.bin\n")
    assert "weights.bin" not in snapshot(source)


def test_what_an_earlier_run_by_hand_left_is_no_source(source, snapshot):
    """Else a model of before would be collected as what this training made."""
    for name in ("outputs/model.pt2", "logs/train.log", "lib/outputs/kept.py"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("before")
    names = snapshot(source)
    assert "lib/outputs/kept.py" in names
    assert not names & {"outputs/model.pt2", "logs/train.log"}


def test_what_is_left_out_by_the_users_own_ignore_files_can_be_told(tmp_path):
    for name in ("train.py", "data/a.bin", "data/deep/b.bin", "src/x.bin", "outputs/old", ".git/config"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert left_out(tmp_path) == []
    (tmp_path / ".gitignore").write_text("data/\n*.bin\n")
    assert left_out(tmp_path) == ["data/", "src/x.bin"]
    (tmp_path / ".amlignore").write_text("x.bin\n")
    assert left_out(tmp_path) == ["src/x.bin"]
    assert {path.relative_to(tmp_path).as_posix() for path in source_files(tmp_path)} >= {"data/a.bin"}


def test_an_amlignore_takes_the_place_of_gitignore(source, snapshot):
    (source / ".gitignore").write_text("data/\n")
    (source / ".amlignore").write_text("*.tmp\n")
    assert snapshot(source) == {"train.py", "lib/model.py", "data/big.bin", ".gitignore", ".amlignore"}


def test_gitignore_files_count_for_their_own_folder(source, snapshot):
    for name in ("lib/cache/a.bin", "lib/deep/b.bin", "lib/deep/keep.bin", "c.bin"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(name)
    (source / "lib" / ".gitignore").write_text("*.bin\n/cache/\n")
    (source / "lib" / "deep" / ".gitignore").write_text("!keep.bin\n")
    names = snapshot(source)
    assert names >= {"c.bin", "data/big.bin", "lib/deep/keep.bin", "lib/model.py"}
    assert not names & {"lib/cache/a.bin", "lib/deep/b.bin"}


def test_what_is_left_out_is_what_git_leaves_out(source, snapshot):
    """Held against git itself."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    shutil.rmtree(source / ".git")
    for name in ("a/x.log", "a/b/x.log", "a/b/y.log", "a/build/z", "build/z", "a/b/*star", "a/ space "):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / ".gitignore").write_text("*.log\n/build\n*.pyc\n__pycache__/\n")
    (source / "a" / ".gitignore").write_text("!x.log\nb/y*\n\\*star\n")
    (source / "a" / "b" / ".gitignore").write_text("x.log\n")
    subprocess.run(["git", "init", "-q", source], check=True)
    command = ["git", "-C", source, "ls-files", "-z", "--others", "--exclude-standard", "--cached"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert snapshot(source) == set(listed.split("\0")) - {""}


@pytest.mark.parametrize(("sizes", "most"), [
    ({"data/a": 200, "data/b": 150, "train.py": 1, "big.bin": 20}, "data/ (0 MB), big.bin"),
    ({f"images/{n}": 1 for n in range(11)}, "images/ (11 files)"),
])  # fmt: skip
def test_a_large_snapshot_is_warned_of(sizes, most):
    warning = size_warning(sizes, large=300, many=10)
    assert most in warning and ".amlignore" in warning
    assert size_warning(sizes, large=10**6, many=100) == ""


def test_the_warning_is_logged(source, snapshot, caplog):
    with (source / "data" / "big.bin").open("wb") as stream:
        stream.truncate(301 * 10**6)
    with caplog.at_level("WARNING", logger="trainyard"):
        snapshot(source)
    assert "Most of it: data/ (301 MB)" in caplog.text
