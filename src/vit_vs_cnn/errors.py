"""The one exception that people are meant to read."""


class UserError(Exception):
    """A mistake the user can mend: one sentence saying what is wrong, where, and what to do.

    The command prints the sentence without a traceback and exits with code 2.
    """
