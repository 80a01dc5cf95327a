from pathlib import Path

import pytest

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.process import ProcessIdentity
from vit_vs_cnn.orchestration.active_runs import ActiveRun
from vit_vs_cnn.orchestration.retention import apply_retention


def test_a_cache_outside_the_project_is_left_as_it_is(project: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "files").mkdir(parents=True)
    (shared / "files/of-another-project").touch()
    (project / ".dvc").mkdir()
    (project / ".dvc/config").write_text(f"[cache]\n    dir = {shared}\n")
    assert apply_retention(30).cache_mb is None
    assert (shared / "files/of-another-project").exists()


def test_the_cache_is_not_cleaned_under_a_run(project: Path) -> None:
    ActiveRun(name="busy", workspace=project, process=ProcessIdentity.current(), flow_run_id=None).save()
    with pytest.raises(UserError, match="run busy is active"):
        apply_retention(1.0)
