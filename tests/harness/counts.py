"""How much of a campaign a test does: a little in `make test`, as much as an environment variable says otherwise."""

import os


def asked(variable: str, few: int, share: float = 1.0) -> int:
    """`few`, or the test's share of the count in the variable."""
    count = os.environ.get(variable)
    return few if count is None else max(few, round(share * int(count)))
