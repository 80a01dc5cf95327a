"""Optuna's samplers and pruners by name, such that a trial's draws depend on its number and not on its process."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from vit_vs_cnn.config.search_space import PrunerSettings, SamplerSettings
from vit_vs_cnn.core.errors import UserError


class SeededSampler(BaseSampler):
    """A sampler that starts anew for each draw, with a seed made of the study's, the trial's number and the parameter.

    Optuna's own carry one random state through the life of a process: a worker that was killed and started again, or
    has company, would draw other parameters for the same trial.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together, as the sampler sees it."""
        return self._sampler(trial, "").infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw those parameters."""
        return self._sampler(trial, "").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one parameter by itself."""
        return self._sampler(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Let the sampler note what it notes at the end of a trial."""
        self._sampler(trial, "").after_trial(study, trial, state, values)

    def _sampler(self, trial: FrozenTrial, parameter: str) -> BaseSampler:
        digest = hashlib.blake2b(f"{self._seed} {trial.number} {parameter}".encode(), digest_size=4).digest()
        return self._make(int.from_bytes(digest))


def make_sampler(settings: SamplerSettings, seed: int) -> BaseSampler:
    """The sampler of that name. Raises UserError where it does not take the arguments."""
    kind = getattr(optuna.samplers, settings.name)
    _called(kind, {"seed": seed, **settings.args}, f"tune.sampler: {settings.name}")
    return SeededSampler(lambda draw: kind(**settings.args, seed=draw), seed)


def make_pruner(settings: PrunerSettings, epochs: int) -> BasePruner:
    """The pruner of that name for trials of so many epochs. Raises UserError where it does not take the arguments."""
    arguments = {"max_resource": epochs} if settings.name == "HyperbandPruner" else {}
    pruner: BasePruner = _called(
        getattr(optuna.pruners, settings.name), {**arguments, **settings.args}, f"tune.pruner: {settings.name}"
    )
    return pruner


def _called(kind: Callable[..., Any], arguments: Mapping[str, Any], key_path: str) -> Any:
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key_path} does not take {dict(arguments)}: {str(error).rstrip('.')}.") from None
