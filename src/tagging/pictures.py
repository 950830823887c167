"""Pictures of recordings: the spectrogram above, the strongest classes' activity or the events over time below."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.data.events import Event
from src.models.decisions import EventDecisions
from src.tagging.found import found_events
from src.tagging.tagger import Tagged
from src.utils.pictures import blank_figure, draw_events, draw_spectrogram, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(
    path: str | Path,
    tagged: Tagged,
    frequencies: np.ndarray,
    names: Sequence[str],
    top_k: int,
    decisions: EventDecisions | None = None,
    true: Sequence[Event] = (),
) -> None:
    """Draw a recording, to a file of the kind that its name ends in.

    With decisions and frames that is with its events, and with the true ones beneath where there are any. Otherwise it
    is with its top_k classes.

    Args:
        frequencies: (F,) Hz of the spectrogram's rows.
        names: of the classes.
    """
    end = float(tagged.ends[-1])
    figure = blank_figure(9, 5.5)
    if tagged.frames is None or decisions is None:
        chosen = tagged.strongest(top_k)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, max(2, 0.35 * len(chosen))))
        draw_activity(below, tagged, chosen, names)
    else:
        found = found_events(tagged.frames, decisions)
        events = {"found": [(event.onset, event.offset, names[event.label]) for event in found], "true": true}
        panels = {name: some for name, some in events.items() if some or name == "found"}
        labels = sorted({label for some in panels.values() for *_, label in some})
        heights = 3, *[max(1, 0.3 * len(labels))] * len(panels)
        above, *rest = figure.subplots(1 + len(panels), 1, sharex=True, height_ratios=heights)
        for below, (name, some) in zip(rest, panels.items()):
            draw_events(below, some, labels)
            below.set_ylabel(name)
        below.set(xlabel="time (s)", xlim=(0, end))
    draw_spectrogram(above, tagged.picture, frequencies, end)
    above.set_title(tagged.path.name)
    save_figure(figure, path, dpi=110)


def draw_activity(axes: "Axes", tagged: Tagged, chosen: np.ndarray, names: Sequence[str]) -> None:
    """Draw classes' scores over time, those of frames where there are any."""
    end = float(tagged.ends[-1])
    if tagged.frames is None:
        centres = (tagged.starts + tagged.ends) / 2
        edges = np.concatenate([[0.0], (centres[1:] + centres[:-1]) / 2, [end]])  # halfway between windows' centres
        scores, times = tagged.scores.T, "time (s), each window around its centre"
    else:
        edges, scores, times = np.append(tagged.frames.onset, end), tagged.frames.values, "time (s)"
    rows = np.arange(len(chosen) + 1)
    mesh = axes.pcolormesh(edges, rows, scores[chosen], vmin=0, vmax=1, cmap="viridis")
    axes.set(xlabel=times, xlim=(0, end))
    axes.set_yticks(rows[:-1] + 0.5, [names[c] for c in chosen])
    axes.invert_yaxis()
    axes.figure.colorbar(mesh, ax=axes, label="score")
