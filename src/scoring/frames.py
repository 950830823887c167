"""How many frames of each clip are scored, and what that means for clips of their length."""

import logging
from contextlib import suppress

import numpy as np

from src.data.audio.opening import opened
from src.data.clip_dataset import ClipDataset
from src.errors import UserError

log = logging.getLogger(__name__)

LOOKED_AT = 50  # clips, evenly spaced
SHORT, FRAMES_OF_SHORT, FRAMES_OF_LONG = 5.0, 501, 1001  # s, and the frames of the published evaluations


def frames_to_score(dataset: ClipDataset) -> int:
    """Frames that the published evaluation of clips of this length scores: 501 up to 5 s, 1001 of longer ones.

    Of log-mels, which it does not know, all frames of the longest clip.
    """
    longest = max(durations(dataset), default=SHORT)
    if dataset.audio.feature == "logmel":
        return dataset.features.num_frames(round(longest * dataset.audio.sample_rate))
    return FRAMES_OF_SHORT if round(longest, 1) <= SHORT else FRAMES_OF_LONG


def report_frames(dataset: ClipDataset, num_frames: int, flag: str = "--num_timesteps", crop: bool = True) -> None:
    """Say what of each clip is scored, with a warning where clips are longer.

    Args:
        num_frames: that `src.data.transforms.evaluation_chain` was made with.
        flag: that sets them.
        crop: of `evaluation_chain`.
    """
    audio = dataset.audio
    scored = num_frames * audio.hop_len / audio.sample_rate  # s
    found = durations(dataset) or [scored]
    shortest, longest = (round(end, 1) for end in (min(found), max(found)))
    lasting = f"{longest:.1f} s" if shortest == longest else f"{shortest:.1f} to {longest:.1f} s"
    span = f"{num_frames} frames ({scored:.1f} s)"
    line = f"scored: {span} from the centre of each clip" if crop else f"scored: all of each clip, at least {span}"
    repeated = f". Clips last {lasting}: shorter ones are repeated up to it" if shortest < round(scored, 1) else ""
    log.info("%s (%s)%s", line, flag, repeated)
    if crop and longest > round(scored, 1):
        needed = dataset.features.num_frames(round(max(found) * audio.sample_rate))
        log.warning("clips last %s, of which %.1f s are scored: %s %d scores all", lasting, scored, flag, needed)


def durations(dataset: ClipDataset) -> list[float]:
    """Seconds of some clips, as their headers say. Those that cannot be opened are passed over."""
    found = []
    for index in np.linspace(0, len(dataset) - 1, min(len(dataset), LOOKED_AT)).astype(int):
        with suppress(UserError), opened(dataset.stored(int(index)), dataset.where(int(index))) as recording:
            found.append(recording.frames / recording.samplerate)
    return found
