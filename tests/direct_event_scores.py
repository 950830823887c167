"""Sound event scores as their definitions say, one threshold and one clip at a time, in exact numbers.

Small inputs of hypothesis, too: times are whole milliseconds, so that nothing depends on rounding.
"""

import itertools
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from src.learning.events import EventTruth, FrameScores

FRAME = 100  # ms


@st.composite
def clips(draw, classes=3, frames=(1, 9), most_events=4):
    """[(scores (T, C), [(onset ms, offset ms, class)])], with many ties. Events touch each other and frames' ends."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(*frames))
        values = draw(
            st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), min_size=count * classes, max_size=count * classes)
        )
        events = []
        for _ in range(draw(st.integers(0, most_events))):
            onset = draw(st.integers(0, 2 * count - 1))
            offset = draw(st.integers(onset + 1, 2 * count))
            events.append((50 * onset, 50 * offset, draw(st.integers(0, classes - 1))))
        found.append((np.array(values).reshape(count, classes), events))
    return found


def inputs(found, classes=3):
    """Of clips, as the code under test takes them."""
    scores = FrameScores.of([scores for scores, _ in found], FRAME / 1000)
    events = [[(on / 1000, off / 1000, label) for on, off, label in inside] for _, inside in found]
    return scores, EventTruth.of(events, [len(each) * FRAME / 1000 for each, _ in found], range(classes))


def thresholds(found, c):
    """All scores of a class, falling."""
    return sorted({value for scores, _ in found for value in scores[:, c]}, reverse=True)


def runs(scores, threshold):
    """[(onset, offset)] in ms of (T,) scores."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], scores >= threshold, [0]]).astype(int))) * FRAME
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def shared(one, other):
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))


def of(events, c):
    return [event for event in events if event[2] == c]


def any_event(event):
    return True


def intersections(found, c, threshold, dtc, gtc, cttc, num_classes=3, to_find=any_event):
    """(found events, false positives, cross triggers by class). Only events to be found are counted as found."""
    dtc, gtc, cttc = (Fraction(str(share)) for share in (dtc, gtc, cttc))
    hits, false, cross = 0, 0, [0] * num_classes
    for scores, events in found:
        relevant = []
        for each in runs(scores[:, c], threshold):
            share = [
                Fraction(sum(shared(each, e) for e in of(events, k)), each[1] - each[0]) for k in range(num_classes)
            ]
            if share[c] >= dtc:
                relevant.append(each)
            else:
                false += 1
                for k in range(num_classes):
                    cross[k] += k != c and share[k] >= cttc
        own = filter(to_find, of(events, c))
        hits += sum(sum(shared(each, e) for each in relevant) >= gtc * (e[1] - e[0]) for e in own)
    return hits, false, cross


def collars(found, c, threshold):
    """(found events, detections): the most matches of all ways to match."""
    hits, count = 0, 0
    for scores, events in found:
        detections, own = runs(scores[:, c], threshold), of(events, c)
        count += len(detections)
        near = [
            [abs(d[0] - e[0]) <= 200 and abs(d[1] - e[1]) <= max(200, Fraction(e[1] - e[0], 5)) for d in detections]
            for e in own
        ]
        few, many = sorted((len(own), len(detections)))
        hits += max(
            sum(near[one][other] if len(own) == few else near[other][one] for one, other in enumerate(chosen))
            for chosen in itertools.permutations(range(many), few)
        )
    return hits, count


def psds(found, dtc, gtc, cttc, alpha_ct, alpha_st, max_efpr, to_find=any_event, num_classes=3):
    """(PSDS, of each class alone), of all operating points. Without events None."""
    hours = sum(len(scores) for scores, _ in found) * FRAME / 3.6e6
    lengths = [sum(e[1] - e[0] for _, events in found for e in of(events, k)) / 3.6e6 for k in range(num_classes)]
    points = []
    for c in range(num_classes):
        total = sum(to_find(event) for _, events in found for event in of(events, c))
        if not total:
            continue
        others = [k for k in range(num_classes) if k != c and lengths[k]]
        points.append([])
        for threshold in thresholds(found, c):
            hits, false, cross = intersections(found, c, threshold, dtc, gtc, cttc, num_classes, to_find)
            rate = false / hours + alpha_ct * sum(cross[k] / lengths[k] for k in others) / max(1, len(others))
            points[-1].append((rate, hits / total))
    if not points:
        return None, []
    rates = sorted({0.0, *(rate for each in points for rate, _ in each if rate < max_efpr)})
    value, alone = 0, np.zeros(len(points))
    for rate, following in zip(rates, [*rates[1:], max_efpr]):
        best = np.array([max([tpr for r, tpr in each if r <= rate + 1e-9], default=0) for each in points])
        value += max(0, best.mean() - alpha_st * best.std()) * (following - rate) / max_efpr
        alone += best * (following - rate) / max_efpr
    return value, alone
