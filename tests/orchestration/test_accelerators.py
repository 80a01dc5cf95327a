import tempfile
from pathlib import Path

import pytest

from vit_vs_cnn.core.errors import TransientError
from vit_vs_cnn.orchestration import accelerators
from vit_vs_cnn.orchestration.accelerators import free_accelerators, slots, use_accelerators


@pytest.fixture(autouse=True)
def lock_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_stages_at_once_have_a_device_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert slots(1) == 1
    with free_accelerators(1) as one, free_accelerators(1) as other, use_accelerators(0, print) as none:
        assert (one, other, none) == ({"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "5"}, {})
    with free_accelerators(1) as again:
        assert again == {"CUDA_VISIBLE_DEVICES": "2"}


def test_stages_that_train_on_several_devices_have_them_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    assert slots(2) == 2
    assert slots(8) == 5
    with free_accelerators(2) as one, free_accelerators(2) as other:
        assert (one, other) == ({"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"})
        with free_accelerators(2) as one_too_many:
            assert one_too_many == {"CUDA_VISIBLE_DEVICES": "4,0"}


@pytest.mark.parametrize("visible", ["", "-1", "3"])
def test_on_a_cpu_or_with_one_device_there_is_nothing_to_choose(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert slots(2) == 1
    with free_accelerators(1) as device:
        assert device == {}


def test_a_server_too_busy_to_hand_out_a_slot_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError

    def busy(*_: object, **__: object) -> None:
        raise ConcurrencySlotAcquisitionError("Unable to acquire concurrency slots: 503 Service Unavailable")

    monkeypatch.setattr(accelerators, "_wait_for_slots", lambda *_: None)
    monkeypatch.setattr("prefect.concurrency.sync.concurrency", busy)
    with pytest.raises(TransientError, match="503 Service Unavailable: Prefect's server is too busy"):
        use_accelerators(1, print).__enter__()
