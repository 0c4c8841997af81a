import uuid

import pytest

from tests.unit.cleaning.aging import age
from trainyard.tasks.caching.stage import StageContext


@pytest.fixture
def context(tmp_path):
    return StageContext(store_url=str(tmp_path / "home" / "store"), home=tmp_path / "home")


@pytest.fixture(params=["file", "s3"])
def aged_place(request, tmp_path, monkeypatch):
    """A store, and what makes everything in it, and at home, old."""
    if request.param == "file":
        context = StageContext(store_url=str(tmp_path / "store"), home=tmp_path / "home")
        folder = tmp_path / "store"
    else:
        server = request.getfixturevalue("s3_server")
        for name, value in {**server.environment(), "AWS_ENDPOINT_URL": server.endpoint_url}.items():
            monkeypatch.setenv(name, value)
        bucket = f"cleaning-{uuid.uuid4().hex[:8]}"
        folder = server.create_bucket(bucket)  # times of its files are those of the objects
        context = StageContext(store_url=f"s3://{bucket}", home=tmp_path / "home")

    def age_all():
        age(folder, 400)
        age(context.home, 400)

    return context, age_all
