"""How far a study is."""

from collections.abc import Collection

from vit_vs_cnn.core.console import duration, table
from vit_vs_cnn.studies.results import Results
from vit_vs_cnn.studies.settings import point_text


def status_text(results: Results, active: Collection[str]) -> str:
    """The state of each run, and about how long the rest will take, one run after the other.

    The estimate is scaled by what the finished runs took beside what was estimated for them. `active` are the names of
    the runs that a process works on now.
    """
    plan, rows = results.plan, [["run", "point", "state", "estimate", "took"]]
    for run in plan.runs:
        done = results.done.get(run.name)
        state = (
            "running" if run.name in active else "done" if done else "failed" if run.name in results.failed else "left"
        )
        took = duration(done.seconds) if done else ""
        rows.append([run.name, point_text(run.values), state, duration(run.seconds), took])
    left = sum(run.seconds for run in results.open) * _pace(results)
    counts = f"{len(results.done)} of {len(plan.runs)} runs done, {len(results.failed)} failed"
    lines = [table(rows, text_columns=3), "", f"{counts}; about {duration(left)} left, one run after the other."]
    lines += [f"{name}: {sentence}" for name, sentence in results.failed.items()]
    return "\n".join(lines)


def _pace(results: Results) -> float:
    """What the finished runs took beside their estimates; 1 before the first, and where they were in the cache."""
    done = [(results.done[run.name].seconds, run.seconds) for run in results.plan.runs if run.name in results.done]
    took, estimated = (sum(column) for column in zip(*done, strict=True)) if done else (0.0, 0.0)
    return took / estimated if took > 0.1 * estimated else 1.0
