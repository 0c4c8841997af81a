"""What the unit tests of several stages share."""

import pytest


@pytest.fixture
def forked_models(request, monkeypatch):
    """Models are loaded in forked processes (see ``forked``), but for tests that ask for their ``own_interpreter``."""
    if "own_interpreter" in request.fixturenames:
        return
    from tests.unit.forked import ForkedModelProcess
    from trainyard.tasks.models import loading
    from trainyard.tasks.validation import footprint

    for module in (loading, footprint):
        monkeypatch.setattr(module, "ModelProcess", ForkedModelProcess)


@pytest.fixture
def own_interpreter():
    """The process itself is what is tested."""
