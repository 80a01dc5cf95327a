"""How far a study is."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from vit_vs_cnn.core.console import duration, table
from vit_vs_cnn.studies.results import Results
from vit_vs_cnn.studies.settings import AxisValue, point_text


@dataclass(frozen=True)
class RunState:
    """How far a run of a study is; seconds are estimated, and those that it took are None until it is done."""

    name: str
    values: dict[str, AxisValue]
    state: Literal["done", "failed", "running", "left"]
    estimated_seconds: float
    seconds: float | None
    failure: str | None


@dataclass(frozen=True)
class StudyStatus:
    """How far a study is, and about how long the rest takes, one run after the other."""

    study: str
    runs: tuple[RunState, ...]
    seconds_left: float


def study_status(results: Results, active: Collection[str]) -> StudyStatus:
    """The state of each run; `active` are the names of the runs that a process works on now.

    What is left is scaled by what the finished runs took beside what was estimated for them.
    """
    states = []
    for run in results.plan.runs:
        done, failure = results.done.get(run.name), results.failed.get(run.name)
        state: Literal["done", "failed", "running", "left"] = (
            "running" if run.name in active else "done" if done else "failed" if failure else "left"
        )
        seconds = done.seconds if done else None
        states.append(RunState(run.name, dict(run.values), state, run.seconds, seconds, failure))
    left = sum(run.seconds for run in results.open) * _pace(results)
    return StudyStatus(results.plan.study, tuple(states), left)


def status_text(status: StudyStatus) -> str:
    """The status for a terminal."""
    rows = [["run", "point", "state", "estimate", "took"]]
    for run in status.runs:
        took = "" if run.seconds is None else duration(run.seconds)
        rows.append([run.name, point_text(run.values), run.state, duration(run.estimated_seconds), took])
    done = sum(run.seconds is not None for run in status.runs)
    failures = [f"{run.name}: {run.failure}" for run in status.runs if run.failure]
    lines = [
        table(rows, text_columns=3),
        "",
        f"{done} of {len(status.runs)} runs done, {len(failures)} failed; about {duration(status.seconds_left)} left, "
        "one run after the other.",
    ]
    return "\n".join([*lines, *failures])


def _pace(results: Results) -> float:
    """What the finished runs took beside their estimates; 1 before the first, and where they were in the cache."""
    done = [(results.done[run.name].seconds, run.seconds) for run in results.plan.runs if run.name in results.done]
    took, estimated = (sum(column) for column in zip(*done, strict=True)) if done else (0.0, 0.0)
    return took / estimated if took > 0.1 * estimated else 1.0
