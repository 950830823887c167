"""The exception for mistakes that the user can mend, the one for a run that was asked to end, and lists in messages."""

import signal
from collections.abc import Sequence


class UserError(ValueError):
    """A mistake in what the user gave: a file, a flag, a value.

    Its message is one line that names the file, the value and the likely cause. The
    command lines print it without a traceback and exit with status 1 (`src.cli.run`).
    """


class Interrupted(KeyboardInterrupt):
    """A signal asked a run to end, and it did so in order. The exit status is 128 and the signal's number."""

    def __init__(self, signum: int = signal.SIGINT):
        super().__init__(signum)
        self.signum = signum


def listed(names: Sequence[object], most: int = 5) -> str:
    """The first few of a list, and how many more there are, for a message of one line."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
