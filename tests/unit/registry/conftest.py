import pytest

from tests.unit.registry.proofs import proven


@pytest.fixture
def proof(context, tmp_path):
    return proven(context, tmp_path / "bundle")
