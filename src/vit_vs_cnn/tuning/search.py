"""A search: worker processes that share a study, started again where they are killed, and its progress."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.devices import accelerators
from vit_vs_cnn.core.errors import ERROR_REPORT_VARIABLE, RunError, UserError, read_error_report
from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.core.process import exit_with_parent
from vit_vs_cnn.tuning import worker
from vit_vs_cnn.tuning.claims import note_death
from vit_vs_cnn.tuning.study import TuningStudy, seconds_of

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_STOP = 5.0
# Dying so often without ending a single trial, workers will not do better the next time.
_MOST_DEATHS_IN_A_ROW = 5


def search(tuning: TuningStudy, prepared: Path) -> None:
    """Work on the study with as many workers as it says, until its budget is used up.

    A worker that is killed is started again and goes on with its trial. Raises UserError with a worker's sentence
    where it cannot work, RunError where workers die again and again.
    """
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        count = tuning.settings.tune.workers or max(1, len(accelerators()))
        workers = [_Worker(tuning, prepared, Path(scratch), index, count) for index in range(count)]
        for each in workers:
            stack.callback(each.stop)
        watch = stack.enter_context(_Watch(tuning))
        if tuning.is_finished():
            return
        for each in workers:
            each.start()
        deaths, ended = 0, watch.ended
        while any(each.is_running() for each in workers):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            watch.look()
            if watch.ended != ended:
                deaths, ended = 0, watch.ended
            for each in workers:
                each.raise_failure()
                if each.was_killed():
                    deaths += 1
                    each.note_death()
                    if deaths >= _MOST_DEATHS_IN_A_ROW:
                        raise RunError(
                            f"tune {tuning.contestant}: its workers died {deaths} times in a row; see above."
                        )
                    each.start()


@contextmanager
def waiting_turn(tuning: TuningStudy) -> Iterator[None]:
    """Two runs of this machine that ask the same question: the second waits, and finds it answered."""
    folder = state_dir() / "tuning"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{tuning.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"tune {tuning.contestant}: another run searches for the same thing; waiting for it", flush=True)
        lock.acquire()
    with lock:
        yield


class _Worker:
    """A worker's process."""

    def __init__(self, tuning: TuningStudy, prepared: Path, scratch: Path, index: int, count: int) -> None:
        self._tuning = tuning
        self._command = exit_with_parent(worker.__name__, tuning.name, str(prepared))
        self._failure = scratch / f"failure-{index}.json"
        self._environment = {**os.environ, ERROR_REPORT_VARIABLE: str(self._failure), **_share(index, count)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def is_running(self) -> bool:
        """Whether it works, or has to be started again."""
        assert self._process is not None
        return self._process.poll() != 0

    def raise_failure(self) -> None:
        """Raise UserError with its own sentence where it ended with one."""
        failure = read_error_report(self._failure)
        if failure is not None:
            raise UserError(failure.message)

    def was_killed(self) -> bool:
        """Whether it ended in another way than by itself."""
        assert self._process is not None
        return self._process.poll() not in (None, 0)

    def note_death(self) -> None:
        """Tell the person, and note it on the trial: one that kills its process must not come back for ever."""
        assert self._process is not None
        code = self._process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        print(f"warning: a worker of {self._tuning.name} died ({how}); starting it again.", file=sys.stderr, flush=True)
        for trial in self._tuning.trials():
            owner = trial.user_attrs.get("worker")
            if trial.state == TrialState.RUNNING and owner and owner["pid"] == self._process.pid:
                note_death(self._tuning.storage, trial)

    def stop(self) -> None:
        """End it, if it runs: it gives its trial back."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(2)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_STOP)
        self._process.kill()
        self._process.wait()


class _Watch:
    """The progress of a study on the terminal: a bar over its trials, and a line for each that ends."""

    def __init__(self, tuning: TuningStudy) -> None:
        self._tuning, self._told = tuning, {trial.number for trial in tuning.trials() if trial.state.is_finished()}
        self._total, self._best = tuning.budget.trials, -1.0
        self._bar = tqdm(total=self._total, initial=len(self._told), unit="trial", **bar_options())
        self._describe(tuning.trials())

    @property
    def ended(self) -> int:
        """Trials that have ended."""
        return len(self._told)

    def __enter__(self) -> "_Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.look()
        self._bar.close()

    def look(self) -> None:
        """Show what has changed."""
        trials = self._tuning.trials()
        new = [trial for trial in trials if trial.state.is_finished() and trial.number not in self._told]
        for trial in new:
            self._told.add(trial.number)
            counted = f"{len(self._told)}/{self._total}"
            self._bar.write(f"tune {self._tuning.contestant}  {counted}  trial {trial.number}  {_words(trial)}")
        if new:
            self._describe(trials)
            self._bar.update(len(new))

    def _describe(self, trials: list[FrozenTrial]) -> None:
        values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
        best = f", best {max(values):.2%}" if values else ""
        self._bar.set_description_str(f"tune {self._tuning.contestant}{best}")


def _words(trial: FrozenTrial) -> str:
    drawn = ", ".join(
        f"{path} {value:.3g}" if isinstance(value, float) else f"{path} {value}" for path, value in trial.params.items()
    )
    epochs = trial.user_attrs.get("epochs", 0)
    spent = f"{epochs} {'epoch' if epochs == 1 else 'epochs'}, {seconds_of(trial):,.0f} s"
    if trial.state == TrialState.FAIL:
        return f"failed: {trial.user_attrs.get('reason', 'unknown')}  ({drawn})"
    end = "pruned after" if trial.state == TrialState.PRUNED else "val after"
    return f"{trial.value:6.2%}  {end} {spent}  ({drawn})"


def _share(index: int, count: int) -> dict[str, str]:
    """The part of the machine that a worker may use: an accelerator, or its share of the processor's cores."""
    devices = accelerators()
    if devices:
        return {"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]}
    if count == 1:
        return {}
    # Workers that each use all cores hold one another up: three at once were several times slower than in turn.
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
