"""The exception for mistakes that the user can mend."""


class UserError(ValueError):
    """A mistake in what the user gave: a file, a flag, a value.

    Its message is one line that names the file, the value and the likely cause. The
    command lines print it without a traceback and exit with status 1 (`src.cli.run`).
    """
