from dataclasses import replace
from pathlib import Path

from vit_vs_cnn.core.process import ProcessIdentity
from vit_vs_cnn.orchestration.active_runs import ActiveRun, active_runs


def test_no_pid_of_a_dead_run_is_trusted(project: Path) -> None:
    here = ProcessIdentity.current()
    processes = {
        "alive": here,
        "another-process-with-its-pid": replace(here, start=here.start - 60),
        "another-host": ProcessIdentity("elsewhere", 1, 0.0),
    }
    for name, process in processes.items():
        ActiveRun(name=name, workspace=project, process=process, flow_run_id=None).save()
    assert [run.name for run in active_runs(dead=True)] == ["another-process-with-its-pid"]
    assert [run.name for run in active_runs(dead=False)] == ["alive", "another-host"]
    active_runs(dead=True)[0].remove()
    assert active_runs(dead=True) == []
