"""What a network cannot show, and why."""


class LeftOutError(Exception):
    """A picture that this network cannot give: one sentence for the reader of the report."""
