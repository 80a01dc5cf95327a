import pytest


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The locks of downloads are a test's own, beside its folder."""
    monkeypatch.setenv("VIT_VS_CNN_STATE", str(tmp_path_factory.mktemp("state")))
