"""The exception for mistakes that the user can mend, and the one for a run that was asked to end."""

import signal


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
