"""Sound event recognition: data, networks, training and evaluation."""

import os
import sys
from types import TracebackType


def _quiet_on_interrupt(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while a script still imports, before `src.cli.run` can say anything, is no fault to trace."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


_script = getattr(sys.modules["__main__"], "__file__", None) or ""
if _script.startswith(os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep):  # not others' programs
    sys.excepthook = _quiet_on_interrupt
