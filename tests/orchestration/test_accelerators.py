from pathlib import Path

import pytest

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.orchestration.accelerators import free_accelerators, slots
from vit_vs_cnn.orchestration.active_runs import ActiveRun, remove_active_run, save_active_run
from vit_vs_cnn.orchestration.retention import apply_retention


def test_stages_at_once_have_a_device_each(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert slots() == 2
    with free_accelerators(1) as one, free_accelerators(1) as other, free_accelerators(0) as none:
        assert (one, other, none) == ({"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "5"}, {})
    with free_accelerators(1) as again:
        assert again == {"CUDA_VISIBLE_DEVICES": "2"}


def test_stages_that_train_on_several_devices_have_them_for_themselves(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    assert slots(2) == 2
    with free_accelerators(2) as one, free_accelerators(2) as other:
        assert (one, other) == ({"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"})
        with free_accelerators(2) as one_too_many:
            assert one_too_many == {"CUDA_VISIBLE_DEVICES": "4,0"}


@pytest.mark.parametrize("visible", ["", "-1", "3"])
def test_on_a_cpu_or_with_one_device_there_is_nothing_to_choose(
    visible: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert slots() == 1
    with free_accelerators(1) as device:
        assert device == {}


def test_the_cache_is_not_cleaned_under_a_run(project: Path) -> None:
    save_active_run(ActiveRun.of_this_process("busy", project, None))
    with pytest.raises(UserError, match="run busy is going on"):
        apply_retention("http://127.0.0.1:9/api", 1.0)
    remove_active_run("busy")
