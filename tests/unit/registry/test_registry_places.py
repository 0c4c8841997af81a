"""The registry at other addresses than a local folder, and from the command line."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

from tests.unit.registry.proofs import LINEAGE, proven, registered, version_folder
from trainyard.cli import app
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import ArtifactDamagedError
from trainyard.tasks.registry.aliases import champion_of
from trainyard.tasks.registry.load import load_model
from trainyard.tasks.registry.register import register_model, verify_registered
from trainyard.tasks.registry.versions import list_models, list_versions


@pytest.fixture(params=["file", "memory", "s3"])
def context(request, tmp_path, monkeypatch):
    if request.param == "s3":
        server = request.getfixturevalue("s3_server")
        for name, value in {**server.environment(), "AWS_ENDPOINT_URL": server.endpoint_url}.items():
            monkeypatch.setenv(name, value)
        bucket = f"registry-{abs(hash(tmp_path)) % 10**8}"
        server.create_bucket(bucket)
        url = f"s3://{bucket}/store"
    else:
        url = {"file": f"file://{tmp_path}/store", "memory": f"memory://{tmp_path.name}"}[request.param]
    return StageContext(store_url=url, home=tmp_path / "home")


def test_two_registrations_at_once_both_succeed_and_can_be_loaded(context, tmp_path):
    proofs = [proven(context, tmp_path / f"bundle-{n}", weights=bytes([n])) for n in range(2)]
    both = threading.Barrier(2)

    def register(proof):
        both.wait()
        return register_model("digits", *proof, LINEAGE, context)

    with ThreadPoolExecutor(2) as pool:
        models = list(pool.map(register, proofs))
    assert sorted(model.version for model in models) == list_versions(context.store, "digits") == [1, 2]
    assert list_models(context.store) == ["digits"]
    assert champion_of(context.store, "digits") in (1, 2)
    for model, number in zip(models, range(2), strict=True):
        verify_registered(model, context)
        folder = load_model("digits", model.version, context)
        assert (folder / "model.onnx.data").read_bytes() == bytes([number]) * 1000


def test_the_command_line_says_what_is_damaged_and_nothing_loads_it(tmp_path):
    context = StageContext(store_url=f"file://{tmp_path}/store", home=tmp_path / "home")
    for _ in range(3):
        registered(context, tmp_path, 0.9)

    def run(*arguments):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["models", *arguments, "--store", context.store_url])
        assert result.exit_code == 0, result.output
        return result.output

    assert "damage" not in run("list") + run("list", "digits") + run("show", "digits")
    (version_folder(context, 1) / "model.onnx").unlink()
    with (version_folder(context, 1) / "model.onnx.data").open("ab") as file:
        file.write(b"more")
    (tmp_path / "store" / "models" / "digits" / "2" / "manifest.json").write_text("{half")
    damage = "model.onnx is missing, model.onnx.data has another size"
    assert "1 (damaged)" in run("list")
    listed = run("list", "digits")
    assert damage in listed and "manifest.json cannot be read" in listed
    assert f"{damage}: it cannot be loaded" in run("show", "digits", "1")
    assert "damage" not in run("show", "digits", "3")
    for version in ("champion", 2):
        with pytest.raises(ArtifactDamagedError):
            load_model("digits", version, context)
    (tmp_path / "store" / "models" / "digits" / "1" / "manifest.json").unlink()
    assert "1 (missing)" in run("list")


def test_square_brackets_are_shown_as_they_are(tmp_path):
    """Rich takes them for markup in plain strings."""
    context = StageContext(store_url=f"file://{tmp_path}/store", home=tmp_path / "home")
    for number, text in enumerate(("[cat,dog]", "[/data]")):
        lineage = LINEAGE.model_copy(update={"arguments": ("--classes", text), "metrics": {f"loss{text}": number}})
        proof = proven(context, tmp_path / f"bundle-{number}", metrics={f"top{text}": 0.5})
        register_model("digits", *proof, lineage, context)

    def run(*arguments):
        result = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["models", *arguments, "--store", context.store_url])
        assert result.exit_code == 0, result.output
        return result.output

    difference = run("diff", "digits", "1", "2")
    assert all(text in difference for text in ("--classes [cat,dog]", "--classes [/data]", "loss[/data]"))
    assert "top[/data] 0.5" in run("list", "digits")
    assert "--classes [/data]" in run("show", "digits", "2")


def test_the_command_line_lists_shows_compares_and_moves(tmp_path):
    context = StageContext(store_url=f"file://{tmp_path}/store", home=tmp_path / "home")

    def run(*arguments, status=0):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["models", *arguments, "--store", context.store_url])
        assert result.exit_code == status, result.output
        return result.output

    assert "No model is registered" in run("list")
    for accuracy in (0.9, 0.8, 0.95):
        registered(context, tmp_path, accuracy)
    assert "digits" in run("list")
    assert "accuracy 0.8000" in run("list", "digits")
    shown = run("show", "digits", "1")
    assert "1x2 mpi" in shown and "model.onnx.data" in shown and "run-1" in shown
    assert "validated accuracy" in run("diff", "digits", "1", "2")
    assert "worse on the same samples" in run("promote", "digits", "2", status=1)
    assert "champion of digits is version 3" in run("promote", "digits")
    assert "champion of digits is version 1: too slow" in run("rollback", "digits", "--reason", "too slow")
    assert "no model 'letters'" in run("list", "letters", status=1)
    assert "is no version of 'digits'" in run("show", "digits", "newest", status=1)
