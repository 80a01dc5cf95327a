"""Names and values of parameters and metrics in MLflow; docs/mlflow.md lists them."""

from collections.abc import Mapping
from decimal import Decimal

from vit_vs_cnn.config.schema import Settings

_SHORT_NAMES = {
    "negative_log_likelihood": "nll",
    "uncalibrated_negative_log_likelihood": "nll_uncalibrated",
    "brier_score": "brier",
    "expected_calibration_error": "ece",
    "expected_calibration_error_low": "ece_low",
    "expected_calibration_error_high": "ece_high",
    "uncalibrated_expected_calibration_error": "ece_uncalibrated",
    "uncalibrated_expected_calibration_error_low": "ece_uncalibrated_low",
    "uncalibrated_expected_calibration_error_high": "ece_uncalibrated_high",
}


def contestant_params(settings: Settings, contestant: str) -> dict[str, object]:
    """The settings of a contestant's training, nested: seed, train, model and recipe."""
    model = settings.model(contestant)
    return {
        "seed": settings.seed,
        "select_by": settings.select_by,
        "train": settings.train.model_dump(),
        "model": model.model_dump(exclude={"recipe"}),
        "recipe": model.recipe.model_dump(),
    }


def flatten_params(params: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested parameters as one text for each dotted path; MLflow sorts and compares them as texts.

    A list is its values joined by ", "; numbers are written without exponents; None and an empty list are "none"; an
    empty mapping has no parameters.
    """
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten_params(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _text(value)
    return flat


def prefixed_metrics(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    """Metrics as `prefix/name`, the long names of quality measures shortened."""
    return {f"{prefix}/{_SHORT_NAMES.get(name, name)}": value for name, value in values.items()}


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
