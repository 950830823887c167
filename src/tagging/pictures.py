"""Pictures of recordings: the spectrogram above, the strongest classes' activity over time below."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.tagging.tagger import Tagged
from src.utils.pictures import blank_figure, draw_spectrogram, save_figure


def draw(path: str | Path, tagged: Tagged, frequencies: np.ndarray, names: Sequence[str], top_k: int) -> None:
    """Draw a recording with its top_k classes, to a file of the kind that its name ends in.

    Args:
        frequencies: (F,) Hz of the spectrogram's rows.
        names: of the classes.
    """
    chosen = tagged.strongest(top_k)
    end = float(tagged.ends[-1])
    figure = blank_figure(9, 5.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, max(2, 0.35 * len(chosen))))
    draw_spectrogram(above, tagged.picture, frequencies, end)
    above.set_title(tagged.path.name)
    centres = (tagged.starts + tagged.ends) / 2
    edges = np.concatenate([[0.0], (centres[1:] + centres[:-1]) / 2, [end]])  # halfway between windows' centres
    rows = np.arange(len(chosen) + 1)
    mesh = below.pcolormesh(edges, rows, tagged.scores[:, chosen].T, vmin=0, vmax=1, cmap="viridis")
    below.set(xlabel="time (s), each window around its centre", xlim=(0, end))
    below.set_yticks(rows[:-1] + 0.5, [names[c] for c in chosen])
    below.invert_yaxis()
    figure.colorbar(mesh, ax=below, label="score")
    save_figure(figure, path, dpi=110)
