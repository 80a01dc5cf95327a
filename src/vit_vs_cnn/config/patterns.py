"""Regular expressions in settings."""

import re
from typing import Annotated

from pydantic import AfterValidator


def _one_capturing_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"needs one capturing group, e.g. patient_(\\d+), and has {groups}")
    return pattern


GroupPattern = Annotated[str, AfterValidator(_one_capturing_group)]
