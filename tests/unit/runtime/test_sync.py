import pytest
import torch

from trainyard.tasks.runtime import sync
from trainyard.tasks.runtime.run import Run
from trainyard.tasks.runtime.sync import OutOfSyncError


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 2, dtype=dtype), torch.nn.BatchNorm1d(2))


def compare(monkeypatch, *models, buffers=True):
    """As rank 0 would, if the others held these models."""
    others = [sync._digests(model, buffers) for model in models[1:]]
    monkeypatch.setattr(sync, "_gather", lambda value: [value, *others])
    sync.assert_in_sync(models[0], "net", buffers, len(models))


def test_one_process_is_in_sync_with_itself():
    Run._from_environment({}).assert_in_sync(network())


def test_several_ranks_need_something_to_compare_by():
    run = Run._from_environment({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(OutOfSyncError, match="one of 2 ranks, but neither Horovod"):
        run.assert_in_sync(network())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64, torch.float8_e5m2])
def test_equal_models_of_every_type_are_in_sync(monkeypatch, dtype):
    compare(monkeypatch, *(torch.nn.ParameterList([torch.ones(3).to(dtype)]) for _ in range(3)))


def test_the_ranks_and_the_first_parameter_that_differ_are_named(monkeypatch):
    models = [network() for _ in range(4)]
    with torch.no_grad():
        for rank in (1, 3):
            models[rank][0].bias += 1e-6
            models[rank][1].weight += 1e-6
    with pytest.raises(OutOfSyncError) as raised:
        compare(monkeypatch, *models)
    message = str(raised.value)
    assert "assert_in_sync('net'): of 4 ranks, these differ from rank 0: 1, 3." in message
    assert "On rank 1, 2 of 7 tensors do; the first is parameter '0.bias' (float32 [2])" in message
    assert "buffers=False" not in message


def test_models_of_other_shapes_differ(monkeypatch):
    with pytest.raises(OutOfSyncError, match=r"parameter 'weight' \(float32 \[2, 3\]\).*rank 1 no such tensor"):
        compare(monkeypatch, torch.nn.Linear(3, 2, bias=False), torch.nn.Linear(4, 2, bias=False))


def test_buffers_count_unless_they_are_left_out(monkeypatch):
    models = [network(), network()]
    models[1][1].running_mean += 1
    with pytest.raises(OutOfSyncError, match=r"buffer '1\.running_mean'.*buffers=False passes over them"):
        compare(monkeypatch, *models)
    compare(monkeypatch, *models, buffers=False)
