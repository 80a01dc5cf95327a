"""Which worker works on which trial: the budget is a total, whoever comes, goes or is killed.

A trial belongs to the process that claimed it, which tells now and then that it lives. Optuna's heartbeat was not
taken: it works inside Study.optimize and on databases only, and gives a killed trial back as another trial, with
another number and so with another bracket and other draws.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, Trial, TrialState

from vit_vs_cnn.core.process import ProcessIdentity
from vit_vs_cnn.tuning.space import draw, own_values
from vit_vs_cnn.tuning.storage import StudyStorage
from vit_vs_cnn.tuning.study import TuningStudy

# A process of another machine is taken for dead when nothing was heard of it for so long.
_GRACE_SECONDS = 60.0
_SECONDS_BETWEEN_BEATS = 5.0
_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Ended:
    """How a trial ended: its value if it is complete, and facts that the study keeps with it.

    `forget` is called once the storage has all this: nothing is needed any more to go on with the trial.
    """

    state: TrialState
    value: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    forget: Callable[[], None] = lambda: None


def note_death(storage: StudyStorage, trial: FrozenTrial) -> None:
    """Count on the trial that its process was killed, anew where it came further since the last time."""
    epochs, deaths = trial.user_attrs.get("deaths", (0, 0))
    done = len(trial.intermediate_values)
    storage.optuna.set_trial_user_attr(trial._trial_id, "deaths", (done, deaths + 1 if done == epochs else 1))


def deaths_of(trial: Trial | FrozenTrial) -> int:
    """How often the trial's process was killed without coming further in between."""
    return int(trial.user_attrs.get("deaths", (0, 0))[1])


class Claims:
    """The trials of a study, as one worker takes and ends them."""

    def __init__(
        self,
        tuning: TuningStudy,
        *,
        grace_seconds: float = _GRACE_SECONDS,
        seconds_between_beats: float = _SECONDS_BETWEEN_BEATS,
    ) -> None:
        self.tuning = tuning
        self._space = tuning.settings.space(tuning.contestant)
        self._me = {**asdict(ProcessIdentity.current()), "parent": asdict(ProcessIdentity.of_parent())}
        self._grace, self._between_beats = grace_seconds, seconds_between_beats
        self._heard: dict[int, tuple[Any, float]] = {}

    def next(self) -> Trial | None:
        """A trial to work on: an abandoned one first, then a new one; None when the budget is used up.

        While others work on the last trials it waits for them to end, or to be abandoned.
        """
        while True:
            with self._lock():
                trials = self.tuning.trials()
                running = [trial for trial in trials if trial.state == TrialState.RUNNING]
                abandoned = next((trial for trial in running if self._is_abandoned(trial)), None)
                if abandoned is not None:
                    return self._take(Trial(self.tuning.study, abandoned._trial_id))
                # A worker whose search was killed is about to give its trial back; a new trial drawn before that would
                # be another one than without the kill.
                if not any(_is_leaving(trial) for trial in running) and not self.tuning.budget.is_used_up(trials):
                    return self._take(self._new(trials))
            if not running:
                return None
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def end(self, trial: Trial, ended: Ended) -> None:
        """Say how the trial ended. It is dropped where the trial was taken for abandoned and is another's now."""
        with self._lock():
            if self._is_mine(trial):
                for key, value in ended.facts.items():
                    trial.set_user_attr(key, value)
                self.tuning.study.tell(trial, ended.value, state=ended.state)
        ended.forget()

    def give_back(self, trial: Trial) -> None:
        """Let another worker go on with the trial."""
        with self._lock():
            if self._is_mine(trial):
                trial.set_user_attr("worker", None)

    @contextmanager
    def alive(self, trial: Trial) -> Iterator[None]:
        """While this lasts, tell the other workers that the trial is worked on."""
        stop = threading.Event()

        def beat() -> None:
            count = 0
            while not stop.wait(self._between_beats):
                count += 1
                self.tuning.storage.optuna.set_trial_user_attr(trial._trial_id, "beat", count)
            self.tuning.storage.optuna.remove_session()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _lock(self) -> AbstractContextManager[None]:
        return self.tuning.storage.lock(self.tuning.name)

    def _new(self, trials: list[FrozenTrial]) -> Trial:
        study = self.tuning.study
        if not trials and not study.get_trials(deepcopy=False):
            model = self.tuning.settings.model(self.tuning.contestant)
            study.enqueue_trial(own_values(model, self._space))
        return study.ask()

    def _take(self, trial: Trial) -> Trial:
        """Draw what is not drawn yet, then own the trial: one without an owner is one that was killed before that."""
        draw(trial, self._space)
        trial.set_user_attr("worker", self._me)
        return trial

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get("worker")
        if owner is None:
            return True
        process = _owner_of(trial)
        if process.is_here():
            return process.is_gone()
        # Clocks of two machines differ: what counts is how long this process has heard nothing new.
        told = (owner, trial.user_attrs.get("beat"))
        heard, since = self._heard.get(trial._trial_id, (None, 0.0))
        if heard != told:
            self._heard[trial._trial_id] = (told, time.monotonic())
            return False
        return time.monotonic() - since > self._grace

    def _is_mine(self, trial: Trial) -> bool:
        now = self.tuning.storage.optuna.get_trial(trial._trial_id)
        return now.state == TrialState.RUNNING and now.user_attrs.get("worker") == self._me


def _owner_of(trial: FrozenTrial) -> ProcessIdentity:
    owner = trial.user_attrs["worker"]
    return ProcessIdentity(owner["host"], owner["pid"], owner["start"])


def _is_leaving(trial: FrozenTrial) -> bool:
    owner = trial.user_attrs.get("worker")
    return owner is not None and ProcessIdentity(**owner["parent"]).is_gone()
