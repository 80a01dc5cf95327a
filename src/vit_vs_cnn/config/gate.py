"""The settings of the gate before `champion`, and the metrics that models may be chosen by."""

from typing import Annotated, Literal

from pydantic import Field

from vit_vs_cnn.config.search_space import StrictModel

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
SelectBy = Literal["accuracy", "balanced_accuracy", "macro_f1", "nll"]


class GateSettings(StrictModel):
    """What a challenger must meet to become champion; a limit of None is no rule.

    `margin` is how far the paired interval of `select_by` may lie below the champion's, or `nll_margin`, in nats per
    image, where that is `nll`. `class_margin` is how much less often it may be right on any class, `min_recall` how
    often at least on one. All but `nll_margin` are fractions. `undecided` says what a promotion without a person does
    where the test images cannot show a loss of that size: keep the champion, or accept the challenger.
    """

    min_accuracy: Fraction = 0.5
    margin: Fraction = 0.01
    class_margin: Fraction = 0.05
    min_recall: dict[str, Fraction] = Field(default_factory=dict)
    nll_margin: Annotated[float, Field(ge=0.0)] = 0.05
    max_calibration_error: Fraction | None = 0.1
    max_latency_p95_ms: Annotated[float, Field(gt=0.0)] | None = None
    max_size_mb: Annotated[float, Field(gt=0.0)] | None = None
    undecided: Literal["keep", "accept"] = "keep"
