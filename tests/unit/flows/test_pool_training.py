"""What a pipeline sends to a work pool."""

import pytest

from trainyard import PyTorch
from trainyard.flows.pool_training import _project


@pytest.mark.parametrize("directory", [".", "../digits", "~/digits", "./", "digits/../../digits/"])
def test_the_project_has_a_name_however_its_directory_is_given(tmp_path, monkeypatch, directory):
    (tmp_path / "digits" / "digits").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "digits")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _project(PyTorch(source_directory=directory, entry_script="train.py")) == "digits"
