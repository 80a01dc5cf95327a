import os
import shutil
import threading
from pathlib import Path

import pytest

from harness.small_project import wait_for
from vit_vs_cnn.cli import main
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import trained
from vit_vs_cnn.core.process import ProcessIdentity
from vit_vs_cnn.orchestration.active_runs import ActiveRun, active_runs, no_active_run
from vit_vs_cnn.orchestration.retention import Old, find_old, remove_old
from vit_vs_cnn.orchestration.workspace import is_shared_cache, sign_cache
from vit_vs_cnn.tracking.outbox import RunRef
from vit_vs_cnn.tracking.retention import OldRuns
from vit_vs_cnn.tracking.run import start_run


def test_a_cache_outside_the_project_is_left_as_it_is(project: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "files").mkdir(parents=True)
    (shared / "files/of-another-project").touch()
    (project / ".dvc").mkdir()
    (project / ".dvc/config").write_text(f"[cache]\n    dir = {shared}\n")
    assert remove_old(find_old(30)) is None
    assert (shared / "files/of-another-project").exists()


def test_a_cache_that_runs_of_another_clone_use_is_left_as_long_as_that_one_exists(
    project: Path, tmp_path: Path
) -> None:
    (project / ".dvc/cache").mkdir(parents=True)
    (project / ".dvc/config").touch()
    other = tmp_path / "other"
    shutil.copytree(project, other)
    (other / ".dvc/config.local").write_text(f"[cache]\n    dir = {project / '.dvc/cache'}\n")
    sign_cache(other)
    assert remove_old(find_old(30)) is None
    shutil.rmtree(other)
    assert not is_shared_cache(project)


def test_the_cache_is_not_cleaned_under_a_run(project: Path) -> None:
    ActiveRun(name="busy", workspace=project, process=ProcessIdentity.current(), flow_run_id=None).save()
    with pytest.raises(UserError, match="run busy is active"):
        find_old(1.0)


def test_a_run_that_starts_while_the_cache_is_cleaned_waits(project: Path) -> None:
    run = ActiveRun(name="late", workspace=project, process=ProcessIdentity.current(), flow_run_id=None)
    starting = threading.Thread(target=run.save)
    with no_active_run():
        starting.start()
        wait_for(lambda: active_runs(dead=False) == [run])
        assert starting.is_alive()
    starting.join(60)
    assert not starting.is_alive()
    old_with_it = Old(1.0, (), (), (), OldRuns(), 0, None)
    with pytest.raises(UserError, match="run late is active"):
        remove_old(old_with_it)


def test_it_says_what_it_would_remove_before_it_does_and_without_an_answer_removes_nothing(
    project: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = project / ".vit-vs-cnn/checkpoints/old"
    checkpoint.mkdir(parents=True)
    (checkpoint / "checkpoint.pt").write_bytes(bytes(2_000_000))
    os.utime(checkpoint, (1, 1))
    for key in ("needed", "not-needed"):
        with start_run(settings, "train", "vit", key):
            pass
    (project / trained("vit", 0)).mkdir(parents=True)
    RunRef(key="needed", experiment="tiny", name="train-vit").write(project / trained("vit", 0) / "run.json")
    unused = project / ".dvc/cache/files/md5" / "d4" / ("0" * 30)
    unused.parent.mkdir(parents=True)
    unused.write_bytes(bytes(3_000_000))
    (project / ".dvc/config").touch()
    monkeypatch.setattr("sys.argv", ["vit-vs-cnn", "clean", "--days", "0"])
    with pytest.raises(SystemExit, match="2"):
        main()
    said = capsys.readouterr()
    assert "0 workspaces, 1 checkpoints, 0 downloads, 1 runs in MLflow, 2.0 MB; and of DVC's cache" in said.out
    assert "nothing refers to then, 3.0 MB." in said.out
    assert "`vit-vs-cnn clean --yes` removes it" in said.err
    assert checkpoint.is_dir()
    assert unused.is_file()
    monkeypatch.setattr("sys.argv", ["vit-vs-cnn", "clean", "--days", "30", "--yes"])
    main()
    first, last = capsys.readouterr().out.splitlines()
    assert first.endswith("0 runs in MLflow, 2.0 MB; and of DVC's cache what nothing refers to then, 3.0 MB.")
    assert last == "removed, and 3.0 MB of DVC's cache."
    assert not checkpoint.exists()
    assert not unused.exists()
