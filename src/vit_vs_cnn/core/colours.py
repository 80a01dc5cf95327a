"""The colours of contestants, the same in every figure, page and chart."""

from collections.abc import Iterable

# Okabe & Ito (2008), "Color Universal Design": distinguishable with every common colour vision deficiency.
# The first entries go to the contestants in the order of params.yaml.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def contestant_colour(models: Iterable[str], contestant: str) -> str:
    """The colour (hex) of a contestant among all of the experiment."""
    return PALETTE[list(models).index(contestant) % len(PALETTE)]
