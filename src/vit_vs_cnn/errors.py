"""The exceptions whose text people read in place of a traceback."""


class UserError(Exception):
    """A mistake the user can mend: one sentence saying what is wrong, where, and what to do.

    The command prints the sentence without a traceback and exits with code 2.
    """


class PassingError(UserError):
    """Trouble outside that may pass by itself: a download, a server, a lock. What runs the stages tries again."""


class RunFailed(Exception):  # noqa: N818 - it reads as what happened
    """A run that a command started has failed; the reason stands in the output above. The command exits with 1."""


class GateRefused(Exception):  # noqa: N818 - it reads as what happened
    """A version did not become champion: a rule of the gate, or another promotion came first. Exit code 3."""
