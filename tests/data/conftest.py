import pytest
from photographs import Photos


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep digests and downloads of tests out of the user's folder."""
    monkeypatch.setenv("UBT_CACHE", str(tmp_path / "ubt-cache"))
    return tmp_path / "ubt-cache"


@pytest.fixture
def photos(tmp_path):
    return Photos(tmp_path / "photos").write()
