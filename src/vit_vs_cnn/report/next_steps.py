"""What to do after a run: what would make the answer surer, and how its best model comes into use."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.report.comparison import Comparison
from vit_vs_cnn.tuning.summary import TuningSummary

# More trainings of each than this nobody would start at once.
_MOST_SEEDS = 10
_USUAL_SEEDS = 3
_USUAL_TRIALS = 20


@dataclass(frozen=True)
class NextStep:
    """A sentence, and the command that does it."""

    sentence: str
    command: str


def next_steps(
    comparison: Comparison, settings: Settings, searches: Mapping[str, TuningSummary], command: str
) -> list[NextStep]:
    """What to do next, by rule, what changes the answer first.

    `searches` are the contestants' tunings; `command` runs the same settings again.
    """
    steps = []
    if more := _more_seeds(comparison, settings):
        listed = ",".join(map(str, [*settings.seeds, *more]))
        steps.append(NextStep("Train each more often; what is trained is kept:", f"--set 'seeds=[{listed}]'"))
    if any(not search.trials for search in searches.values()):
        steps.append(NextStep("Search each one's recipe on these images:", f"--set tune.trials={_USUAL_TRIALS}"))
    if any(replicate.summary.still_rising for one in comparison.contestants for replicate in one.replicates):
        steps.append(NextStep("Train for longer:", f"--set train.epochs={2 * settings.train.epochs}"))
    # Without it these commands take the data of params.yaml, which need not be this run's.
    registry = f"--registry {settings.data.name}"
    return [
        *(NextStep(step.sentence, f"{command} {step.command}") for step in steps),
        NextStep("Put the best into use, if it passes the gate:", f"vit-vs-cnn registry promote {registry}"),
        NextStep("Serve it, with a page to try it on:", f"vit-vs-cnn serve {registry}"),
    ]


def _more_seeds(comparison: Comparison, settings: Settings) -> list[int]:
    """The seeds to train with as well; none where more trainings would not help, or too many would be needed."""
    trained = settings.seeds
    needed = [pair.seeds_needed for pair in comparison.pairs if pair.verdict == "undecided" and pair.seeds_needed]
    wanted = max([*needed, _USUAL_SEEDS if len(trained) == 1 else 0])
    if wanted > _MOST_SEEDS:
        return []
    others = (seed for seed in range(wanted + len(trained)) if seed not in trained)
    return list(islice(others, max(0, wanted - len(trained))))
