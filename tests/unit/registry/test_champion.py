"""Aliases: forward only through a gate, and back."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.registry.proofs import registered, version_folder
from trainyard.tasks.errors import ArtifactDamagedError, RegistrationError
from trainyard.tasks.registry.aliases import champion_of, list_moves, resolve
from trainyard.tasks.registry.promote import promote, roll_back


def test_the_first_version_is_champion_and_a_later_one_only_if_it_was_compared_with_it(context, tmp_path):
    assert champion_of(context.store, "digits") is None
    assert registered(context, tmp_path, 0.9) == 1
    registered(context, tmp_path, 0.99)
    assert champion_of(context.store, "digits") == 1
    registered(context, tmp_path, 0.99, champion_version=1)
    assert champion_of(context.store, "digits") == 3
    registered(context, tmp_path, 0.99, champion_version=1)  # compared with one that is champion no more
    assert champion_of(context.store, "digits") == 3
    assert resolve(context.store, "digits", "latest") == 4
    assert [move.version for move in list_moves(context.store, "digits")] == [1, 3]


def test_promotion_goes_through_the_gate_and_back_again(context, tmp_path):
    store = context.store
    for accuracy in (0.9, 0.8, 0.95):
        registered(context, tmp_path, accuracy)
    other = registered(context, tmp_path, 0.99, samples="e" * 64)
    with pytest.raises(RegistrationError, match=r"worse on the same samples \(accuracy 0.8000 against 0.9000\)"):
        promote(store, "digits", 2)
    with pytest.raises(RegistrationError, match=r"not measured on the same labelled samples.*--override"):
        promote(store, "digits", other)
    with pytest.raises(RegistrationError, match="is the champion already"):
        promote(store, "digits", 1)
    assert champion_of(store, "digits") == 1
    assert "0.9500 against 0.9000" in promote(store, "digits", 3).reason
    assert "new labels (although they were not" in promote(store, "digits", other, override="new labels").reason
    assert [champion_of(store, "digits"), roll_back(store, "digits", "x").version] == [4, 3]
    assert roll_back(store, "digits", "x").version == champion_of(store, "digits") == 1
    with pytest.raises(RegistrationError, match="no version was it before"):
        roll_back(store, "digits", "x")
    (version_folder(context, 3) / "model.onnx").write_bytes(b"swapped")
    with pytest.raises(ArtifactDamagedError, match="is damaged"):
        promote(store, "digits", 3)


def test_promotion_knows_which_way_is_better(context, tmp_path):
    def measured(rmse, mae, **more):
        summary = {"metrics": {"rmse": rmse, "mae": mae}, "samples_sha256": "d" * 64, **more}
        return registered(context, tmp_path, **summary)

    measured(0.5, 0.3)
    worse, better = measured(0.6, 0.2), measured(0.4, 0.2)
    with pytest.raises(RegistrationError, match=r"worse .*\(mae 0.2000 .* rmse 0.6000 against 0.5000"):
        promote(context.store, "digits", worse)
    assert promote(context.store, "digits", better).version == better
    by_one = measured(0.3, 0.9, compared_by=("rmse",))
    assert "(rmse 0.3000 against 0.4000)" in promote(context.store, "digits", by_one).reason
    with pytest.raises(RegistrationError, match="r2 was not measured of both"):
        promote(context.store, "digits", measured(0.1, 0.1, compared_by=("r2",)))


def test_of_moves_at_once_each_is_decided_on_what_is_then_true(context, tmp_path):
    for accuracy in (0.5, 0.6, 0.7, 0.8, 0.9):
        registered(context, tmp_path, accuracy)

    def try_promote(version):
        try:
            return promote(context.store, "digits", version).version
        except RegistrationError:
            return None

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(try_promote, [2, 3, 4, 5]))
    moves = list_moves(context.store, "digits")
    assert [move.number for move in moves] == list(range(1, len(moves) + 1))
    assert [move.version for move in moves] == sorted(move.version for move in moves)  # never to a worse one
    assert champion_of(context.store, "digits") == 5
