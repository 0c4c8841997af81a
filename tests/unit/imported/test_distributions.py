import importlib.metadata
import sys

import importlib_metadata  # whose finder takes the place of the standard library's, once anybody has imported it
import pytest

from trainyard.tasks.imported.distributions import installed_distributions, module_providers


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders that modules are imported from: no other, for what lies in those may change at any time."""
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        folder.mkdir()
    monkeypatch.setattr(sys, "path", [*map(str, folders)])
    return folders


def install(folder, name, version, *lines):
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
    (metadata / "METADATA").write_text(f"{text}\n\nVersion: of nothing\n")
    (metadata / "top_level.txt").write_text(f"{name.lower().replace('-', '_')}\n")
    return metadata


def test_what_is_installed_is_known_by_its_normalised_name():
    assert installed_distributions()["pyyaml"].version == importlib.metadata.version("PyYAML")
    assert module_providers()["yaml"] == ["pyyaml"]


def test_of_two_the_one_that_is_imported_counts(folders):
    first, second = folders
    install(second, "Good-Thing", "1.0")
    install(first, "good.thing", "2.0")
    assert installed_distributions()["good-thing"].version == "2.0"


def test_it_is_read_once_until_something_is_installed_or_removed(folders):
    install(folders[0], "one-thing", "1.0")
    before = installed_distributions()
    assert installed_distributions() is before and module_providers() is module_providers()
    install(folders[1], "other-thing", "1.0")
    assert set(installed_distributions()) - set(before) == {"other-thing"}
    assert module_providers()["other_thing"] == ["other-thing"]
    (folders[0] / "one_thing-1.0.dist-info").rename(folders[0] / "gone")
    assert "one-thing" not in installed_distributions()


def test_requirements_are_those_of_this_machine_without_extras(folders):
    install(
        folders[0],
        "needy",
        "1.0",
        "Requires-Dist: numpy>=2",
        "Requires-Dist: never; python_version < '3'",
        "Requires-Dist: maybe; extra == 'more'",
        "Requires-Dist: not a requirement",
    )
    assert [str(each) for each in installed_distributions()["needy"].requirements] == ["numpy>=2"]


def test_modules_that_are_not_declared_are_those_among_its_files(folders):
    metadata = install(folders[0], "plain", "1.0")
    (metadata / "top_level.txt").unlink()
    files = ["package/__init__.py", "package/deep/other.py", "single.py", f"{metadata.name}/METADATA", "../bin/plain"]
    (metadata / "RECORD").write_text("".join(f"{name},,\n" for name in files))
    for name in files[:3]:
        (folders[0] / name).parent.mkdir(parents=True, exist_ok=True)
        (folders[0] / name).touch()
    assert module_providers() == {"package": ["plain"], "single": ["plain"]}


@pytest.mark.parametrize("library", [importlib.metadata, importlib_metadata], ids=["standard", "backport"])
def test_what_an_uninstallation_has_left_counts_for_nothing(folders, monkeypatch, library):
    monkeypatch.setattr("trainyard.tasks.imported.distributions.distributions", library.distributions)
    install(folders[0], "whole", "1.0")
    (folders[0] / "left-1.0.dist-info").mkdir()
    (folders[0] / "left-1.0.dist-info" / "top_level.txt").write_text("left\n")
    assert set(installed_distributions()) == {"whole"}
    assert set(module_providers()) == {"whole"}
