"""The input of events.json: scores, true events and durations of 40 clips, from NumPy's seeded generator alone."""

import numpy as np

CLASSES = ("bell", "dog", "rain", "speech")
FRAME = 0.04  # s
DURATION = 5.0  # s of every clip


def make(seed=20):
    """(scores, events, durations) by clip name.

    scores: (125, 4) float64 in (0, 1), frames of 40 ms in order, classes as in CLASSES.
    events: sorted list of (onset s, offset s, class). Events of one class in a clip do not overlap.
    durations: s.
    """
    rng = np.random.RandomState(seed)
    frames = int(round(DURATION / FRAME))
    scores, events, durations = {}, {}, {}
    for number in range(40):
        name = f"clip{number:02d}"
        truth = []
        logits = rng.randn(frames, len(CLASSES)) * 0.6 - 2.0
        for c, label in enumerate(CLASSES):
            position = rng.uniform(0.0, 3.0)
            for _ in range(rng.randint(0, 3)):
                onset = position + rng.uniform(0.0, 1.0)
                offset = min(onset + rng.uniform(0.3, 2.0), DURATION)
                if offset - onset < 0.25:
                    break
                truth.append((round(onset, 3), round(offset, 3), label))
                position = offset + 0.2
                if rng.rand() < 0.85:  # heard, with displaced ends
                    first = int(np.clip((onset + rng.randn() * 0.08) / FRAME, 0, frames))
                    last = int(np.clip((offset + rng.randn() * 0.12) / FRAME, 0, frames))
                    logits[first:last, c] += rng.uniform(2.0, 5.0)
            if rng.rand() < 0.15:  # a false alarm
                first = rng.randint(0, frames - 20)
                logits[first : first + rng.randint(5, 20), c] += rng.uniform(1.5, 4.0)
        kernel = np.ones(5) / 5
        smooth = np.stack([np.convolve(logits[:, c], kernel, mode="same") for c in range(len(CLASSES))], axis=1)
        scores[name] = 1 / (1 + np.exp(-smooth))
        events[name] = sorted(truth)
        durations[name] = DURATION
    return scores, events, durations
