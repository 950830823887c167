"""Pictures: matplotlib's figures without a display, each saved as a whole file."""

import logging
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.errors import UserError, listed
from src.utils.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

KINDS = (".png", ".pdf", ".svg", ".jpg")


def blank_figure(width: float, height: float) -> "Figure":
    """An empty figure of a size in inches. matplotlib is imported here, as it takes a while.

    From now on `$` in a text is a dollar sign: names of files and classes may hold it, and no figure here has formulas.
    """
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["text.parse_math"] = False
    return Figure(figsize=(width, height), layout="constrained")


def require_kind(flag: str, path: str | None) -> None:
    """Refuse a picture's name that does not end in a kind. None stands for no picture.

    Raises:
        UserError: with the flag's name.
    """
    if path and Path(path).suffix.lower() not in KINDS:
        raise UserError(f"{flag} {path}: a picture ends in {', '.join(KINDS)}")


def draw_events(axes: "Axes", events: Sequence[tuple[float, float, str]], labels: Sequence[str]) -> None:
    """Draw (onset, offset, label) events in s as bars, in the row of their label, one of `labels`."""
    for onset, offset, label in events:
        row = labels.index(label)
        axes.barh(row, offset - onset, left=onset, height=0.6, alpha=0.6, color=f"C{row % 10}")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)


def draw_spectrogram(axes: "Axes", spectrogram: np.ndarray, frequencies: np.ndarray, seconds: float) -> None:
    """Draw a spectrogram, each bin or band as high as the others, with ticks in Hz.

    Args:
        spectrogram: (F, T) dB.
        frequencies: (F,) Hz, ascending.
        seconds: its length.
    """
    extent = (0, seconds, -0.5, len(frequencies) - 0.5)
    axes.imshow(spectrogram, origin="lower", aspect="auto", extent=extent, cmap="magma")
    rows, ticks = frequency_ticks(frequencies)
    axes.set_yticks(rows, [f"{tick:g}" for tick in ticks])
    axes.set_ylabel("frequency (Hz)")


def frequency_ticks(frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where to write frequencies beside a spectrogram: (K,) rows, not whole ones, and their (K,) Hz.

    Args:
        frequencies: (F,) Hz of its rows, ascending.
    """
    from matplotlib.ticker import MaxNLocator

    octaves, even = 250 * 2.0 ** np.arange(12), np.allclose(np.diff(frequencies, 2), 0)
    ticks = MaxNLocator(6).tick_values(0, frequencies[-1]) if even else octaves
    ticks = ticks[ticks <= frequencies[-1]]
    return np.interp(ticks, frequencies, np.arange(len(frequencies))), ticks


def save_figure(figure: "Figure", path: str | PathLike, dpi: int, kind: str | None = None) -> None:
    """Write a figure as `kind`, by default what the file's name ends in, or PNG if it has no ending."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):  # a file's name need not be UTF-8, and no font has what stands for other bytes
        text.set_text(text.get_text().encode(errors="surrogateescape").decode(errors="replace"))
    with whole_file(path) as temporary, warnings.catch_warnings(record=True) as found:  # one for every sign, otherwise
        figure.savefig(temporary, dpi=dpi, format=kind or Path(path).suffix.lstrip(".") or "png")
    if found:
        log.warning("%s: %s", path, listed([str(warning.message) for warning in found], 1))
