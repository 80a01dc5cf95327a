"""How much of a campaign a test does: a little in `make test`, as much as an environment variable says otherwise."""

import os
from random import Random


def asked(variable: str, few: int, share: float = 1.0) -> int:
    """`few`, or the test's share of the count in the variable."""
    count = os.environ.get(variable)
    return few if count is None else max(few, round(share * int(count)))


def seeded() -> Random:
    """Random numbers that are the same at each call, others by VIT_VS_CNN_SEED."""
    return Random(os.environ.get("VIT_VS_CNN_SEED", "0"))
