import pytest

from tests.unit.registry.proofs import proven
from trainyard.tasks.caching.stage import StageContext


@pytest.fixture
def context(tmp_path):
    return StageContext(store_url=str(tmp_path / "store"), home=tmp_path / "home")


@pytest.fixture
def proof(context, tmp_path):
    return proven(context, tmp_path / "bundle")
