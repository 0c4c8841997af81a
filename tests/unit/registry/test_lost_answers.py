"""A store that does what it was asked, and whose answer is lost."""

import pytest

from tests.unit.registry.proofs import LINEAGE, registered
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.errors import StorageUnavailableError
from trainyard.tasks.registry.aliases import list_moves, resolve
from trainyard.tasks.registry.load import load_model
from trainyard.tasks.registry.promote import promote
from trainyard.tasks.registry.register import register_model, verify_registered
from trainyard.tasks.registry.versions import list_versions


@pytest.fixture
def lose_answers(monkeypatch):
    """Objects of a name are created, but their writer hears something else, or an error."""

    def begin(name, answer):
        original = Location.create_bytes

        def create_bytes(location, data):
            created = original(location, data)
            if created and name in location.url:
                monkeypatch.setattr(Location, "create_bytes", original)
                if isinstance(answer, BaseException):
                    raise answer
                return answer
            return created

        monkeypatch.setattr(Location, "create_bytes", create_bytes)

    return begin


@pytest.mark.parametrize("answer", [StorageUnavailableError("the connection was reset"), False])
def test_a_version_whose_manifest_was_written_is_registered_whatever_was_heard(context, proof, lose_answers, answer):
    """False is what a second request hears that the client sends in place of one without an answer."""
    lose_answers("manifest.json", answer)
    model = register_model("digits", *proof, LINEAGE, context)
    assert (model.version, list_versions(context.store, "digits")) == (1, [1])
    verify_registered(model, context)
    assert load_model("digits", "latest", context).is_dir()


def test_an_interrupt_after_the_manifest_was_written_leaves_a_whole_version(context, proof, lose_answers):
    lose_answers("manifest.json", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        register_model("digits", *proof, LINEAGE, context)
    assert list_versions(context.store, "digits") == [1]
    assert load_model("digits", "latest", context).is_dir()


def test_nothing_is_withdrawn_while_nobody_knows_who_has_the_number(context, proof, lose_answers, monkeypatch):
    lose_answers("manifest.json", StorageUnavailableError("the connection was reset"))
    with monkeypatch.context() as gone:

        def read_bytes(location):
            raise StorageUnavailableError(f"{location.url} does not answer")

        gone.setattr(Location, "read_bytes", read_bytes)
        with pytest.raises(StorageUnavailableError, match="was reset"):
            register_model("digits", *proof, LINEAGE, context)
    assert load_model("digits", "latest", context).is_dir()


def test_a_move_of_the_champion_is_made_once(context, tmp_path, lose_answers):
    for accuracy in (0.8, 0.9):
        registered(context, tmp_path, accuracy)
    lose_answers("champion/", False)
    assert promote(context.store, "digits", 2).number == 2
    assert [(move.number, move.version) for move in list_moves(context.store, "digits")] == [(1, 1), (2, 2)]


def test_the_number_of_a_champion_is_never_given_again(context, tmp_path):
    """A person deletes the newest version; the moves that name it must not come to mean another model."""
    for accuracy in (0.8, 0.9):
        registered(context, tmp_path, accuracy, champion_version=1)
    assert resolve(context.store, "digits", "champion") == 2
    for found in list((context.store.root / "models/digits/2").list_objects()):
        (context.store.root / "models/digits/2" / found.key).delete()
    assert registered(context, tmp_path, 0.1) == 3
    assert list_versions(context.store, "digits") == [1, 3]
    assert [move.version for move in list_moves(context.store, "digits")] == [1, 2]
