import os
import shutil
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

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
from vit_vs_cnn.tracking.store import tracking_uri


def test_a_cache_outside_the_project_is_left_as_it_is(project: Path) -> None:
    shared = _share_the_cache(project)
    (shared / "files").mkdir(parents=True)
    (shared / "files/of-another-project").touch()
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
    with pytest.raises(UserError, match=r"run busy on .* is active"):
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
    with pytest.raises(UserError, match=r"run late on .* is active"):
        remove_old(old_with_it)


def test_runs_that_are_needed_again_since_they_were_found_stay(project: Path, settings: Settings) -> None:
    _share_the_cache(project)
    for key in ("resumed", "registered", "old"):
        with start_run(settings, key, key=key):
            pass
    client = MlflowClient(tracking_uri())
    found = client.get_experiment_by_name("tiny")
    assert found is not None
    ids = {run.info.run_name: run.info.run_id for run in client.search_runs([found.experiment_id])}
    old = find_old(0)
    assert len(old.runs.run_ids) == 3
    client.update_run(ids["resumed"], status="RUNNING")
    client.create_registered_model("tiny-classifier")
    client.create_model_version("tiny-classifier", f"runs:/{ids['registered']}/model", ids["registered"])
    with start_run(settings, "young", key="young"):
        pass  # old by now, but nobody was told of it
    remove_old(old)
    left = {run.info.run_name for run in client.search_runs([found.experiment_id], "", ViewType.ALL)}
    assert left == {"resumed", "registered", "young"}


def test_another_store_is_neither_written_nor_needed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _share_the_cache(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/team.db")
    client = MlflowClient(tracking_uri())
    trashed = client.create_experiment("trashed")
    client.delete_experiment(trashed)
    before = client.get_experiment(trashed)
    assert remove_old(find_old(0)) is None
    assert dict(client.get_experiment(trashed)) == dict(before)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert remove_old(find_old(0)) is None


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


def _share_the_cache(project: Path) -> Path:
    """Have DVC's cache outside the project, where it is left as it is."""
    shared = project.parent / "shared"
    (project / ".dvc").mkdir()
    (project / ".dvc/config").write_text(f"[cache]\n    dir = {shared}\n")
    return shared
