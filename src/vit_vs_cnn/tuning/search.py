"""A search: worker processes that share a study, restarted where they are killed, and the progress of its trials."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.devices import accelerators
from vit_vs_cnn.core.errors import ERROR_REPORT_VARIABLE, RunError, UserError, read_error_report
from vit_vs_cnn.core.paths import PREPARED, project_root, runs_dir, state_dir
from vit_vs_cnn.core.process import exit_with_parent, stop_tree
from vit_vs_cnn.data.dataset import read_info
from vit_vs_cnn.training.results import score_text
from vit_vs_cnn.tuning import worker
from vit_vs_cnn.tuning.storage import open_storage, storage_failures, storage_url
from vit_vs_cnn.tuning.study import TuningStudy, find_study, is_finished, seconds_of

_POLL_SECONDS = 0.5
# Workers that die so often without finishing a trial are not restarted any more.
_MAX_DEATHS_IN_A_ROW = 5


def search(tuning: TuningStudy, prepared: Path) -> None:
    """Run the study's workers until its budget is used up.

    A worker that is killed is restarted, and its trial resumed. Raises UserError or TransientError with the sentence
    of a worker that cannot work, RunError where workers die again and again.
    """
    with storage_failures(tuning.storage.url):
        if not tuning.is_finished():
            _run_workers(tuning, prepared)


def _run_workers(tuning: TuningStudy, prepared: Path) -> None:
    count = tuning.settings.tune.workers or max(1, len(accelerators()))
    progress, deaths = _Progress(tuning), 0
    with progress.bar, TemporaryDirectory() as scratch, ExitStack() as stack:
        error_report = Path(scratch, "error.json")
        shares = [{ERROR_REPORT_VARIABLE: str(error_report), **_share_of_machine(i, count)} for i in range(count)]
        workers = [_start_worker(tuning, prepared, share) for share in shares]
        stack.callback(_stop, workers)
        while any(process.poll() != 0 for process in workers):
            time.sleep(_POLL_SECONDS)
            if progress.update():
                deaths = 0
            for index, process in enumerate(workers):
                if process.poll() in (None, 0):
                    continue
                if reported := read_error_report(error_report):
                    raise reported
                deaths += 1
                if deaths == _MAX_DEATHS_IN_A_ROW:
                    raise RunError(f"tune {tuning.contestant}: its workers died {deaths} times in a row; see above.")
                code = process.returncode
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                print(f"warning: a worker of {tuning.name} died ({how}); restarting it.", file=sys.stderr, flush=True)
                tuning.release_trial(process.pid)
                workers[index] = _start_worker(tuning, prepared, shares[index])
        progress.update()
    # Of a worker that was killed after its trial's end, before it removed the trial's checkpoint.
    for checkpoint in (state_dir() / "checkpoints").glob(f"{tuning.name}-*/"):
        shutil.rmtree(checkpoint)


def join_search(contestant: str) -> None:
    """Run this machine's workers for the contestant's unfinished study.

    Raises UserError where there is no such study, or where its data are not here.
    """
    tuning = find_study(open_storage(storage_url()), contestant)
    search(tuning, _find_prepared(tuning))
    print(f"tune {contestant}: the study {tuning.name} has its {tuning.max_trials} trials")


@contextmanager
def search_lock(tuning: TuningStudy) -> Iterator[None]:
    """Let one run of this machine search for the same thing: a second one waits, and finds the study finished."""
    folder = state_dir() / "tuning"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{tuning.name}.lock")
    try:
        acquired = lock.acquire(timeout=0)
    except Timeout:
        print(f"tune {tuning.contestant}: another run searches for the same thing; waiting for it", flush=True)
        acquired = lock.acquire()
    with acquired:
        yield


def _start_worker(tuning: TuningStudy, prepared: Path, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    command = exit_with_parent(worker.__name__, tuning.name, str(prepared))
    return subprocess.Popen(command, env=os.environ | environment, stdin=subprocess.DEVNULL, start_new_session=True)


def _stop(workers: "list[subprocess.Popen[bytes]]") -> None:
    for process in workers:
        stop_tree(process)


class _Progress:
    """A bar over the trials of a study on the terminal, and a line for each trial that finishes."""

    def __init__(self, tuning: TuningStudy) -> None:
        self._tuning, self._total, self._select_by = tuning, tuning.max_trials, tuning.settings.select_by
        self._finished = {trial.number for trial in tuning.trials() if is_finished(trial)}
        self.bar = tqdm(total=self._total, initial=len(self._finished), unit="trial", **bar_options())
        self.bar.set_description_str(f"tune {tuning.contestant}")

    def update(self) -> bool:
        """Show the trials that finished since the last call, and return whether there were any."""
        trials = self._tuning.trials()
        new = [trial for trial in trials if is_finished(trial) and trial.number not in self._finished]
        for trial in new:
            self._finished.add(trial.number)
            count = f"{len(self._finished)}/{self._total}"
            line = _describe(trial, self._select_by)
            self.bar.write(f"tune {self._tuning.contestant}  {count}  trial {trial.number}  {line}")
        values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
        if new and values:
            best = score_text(max(values), self._select_by).strip()
            self.bar.set_description_str(f"tune {self._tuning.contestant}, best {best}")
        self.bar.update(len(new))
        return bool(new)


def _describe(trial: FrozenTrial, select_by: str) -> str:
    values = ", ".join(
        f"{path} {value:.3g}" if isinstance(value, float) else f"{path} {value}" for path, value in trial.params.items()
    )
    if trial.state == TrialState.FAIL:
        return f"failed: {trial.user_attrs['reason']}  ({values})"
    epochs = len(trial.intermediate_values)
    end = "pruned after" if trial.state == TrialState.PRUNED else "val after"
    unit = "epoch" if epochs == 1 else "epochs"
    assert trial.value is not None
    return f"{score_text(trial.value, select_by)}  {end} {epochs} {unit}, {seconds_of(trial):,.0f} s  ({values})"


def _share_of_machine(index: int, count: int) -> dict[str, str]:
    """The environment that gives a worker its accelerator, or its share of the processor's cores."""
    devices = accelerators()
    if devices:
        return {"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]}
    if count == 1:
        return {}
    # Workers that each use all cores slow one another down: three at once were several times slower than in turn.
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}


def _find_prepared(tuning: TuningStudy) -> Path:
    """The folder of prepared data with the study's digest: the project's, or that of one of its isolated runs."""
    for folder in (project_root() / PREPARED, *sorted(runs_dir().glob(f"*/{PREPARED}"))):
        if (folder / "dataset.json").is_file() and read_info(folder).digest == tuning.data_digest:
            return folder
    data = tuning.settings.data
    raise UserError(
        f"{tuning.contestant}: the study {tuning.name} is about the data {data.name} (digest "
        f"{tuning.data_digest[:12]}), which are not here: `dvc pull` brings them, or `vit-vs-cnn prepare` makes them "
        f"with data.path {data.path}."
    )
