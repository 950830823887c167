"""A page to look at recordings and to listen to them: one HTML file with everything in it.

`page.html` is its text, style and program. Of each recording a block of JSON goes into it, as data and never as markup.
Arrays and files are in base64 there.
"""

import base64
import hashlib
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from src.data.audio.opening import opened
from src.data.audio.windows import resampled_length, windows
from src.tagging.found import decisions_of, scores_over_time
from src.tagging.inputs import PICTURE_COLUMNS
from src.tagging.tagger import Tagged, Tagger
from src.utils.files import whole_file
from src.utils.pictures import frequency_ticks

log = logging.getLogger(__name__)

TEMPLATE = Path(__file__).with_name("page.html")
PLACE = "<!-- recordings -->"  # of the data, in the template
MOST_SOUND = 2 * 3600.0  # s of sound in a page. Browsers become slow with larger files
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz
MP3_LEVEL = 0.6  # of compression: 64 kbit/s at 22,050 Hz
BLOCK = 1 << 18  # samples encoded at a time
COLOURS = 32  # of a picture. It takes half the space that it would with 256


@contextmanager
def page(
    path: str | Path, tagger: Tagger, top_k: int, threshold: float | None = None
) -> Iterator[Callable[[Tagged], None]]:
    """Yield what adds a recording. The page at `path` is replaced when the block ends.

    A recording has a lane for each class that reaches its threshold, and for the top_k strongest.

    Args:
        threshold: in place of all of the checkpoint's.

    Raises:
        UserError: in the block, a recording cannot be read a second time.
    """
    decisions = decisions_of(tagger, threshold)
    rows, ticks = frequency_ticks(tagger.features.frequencies)
    heights = (rows + 0.5) / tagger.features.num_bins
    index: dict[str, Any] = {
        "chosen": threshold is None
        and bool(tagger.event_decisions or tagger.decisions),  # rather than the same for all
        "ticks": list(zip(heights.tolist(), ticks.tolist())),
        "recordings": [],
    }
    held = 0.0  # s of sound

    def add(tagged: Tagged) -> None:
        nonlocal held
        values, onset, offset = scores_over_time(tagged, decisions)
        strongest, duration = values.max(axis=1), float(tagged.ends[-1])
        order = np.argsort(-strongest, kind="stable")
        lanes = [c for rank, c in enumerate(order) if rank < top_k or strongest[c] >= decisions.limits[c]]
        fits = held + duration <= MOST_SOUND
        if fits:
            held += duration
        else:
            log.warning("%s: is in %s without its sound, of which %g h fit", tagged.path, path, MOST_SOUND / 3600)
        content = {
            "sound": base64_of(mp3_of(tagged.path, tagger.sample_rate)) if fits else None,
            "picture": base64_of(picture_of(tagged, tagger.features.num_frames(round(duration * tagger.sample_rate)))),
            "onsets": base64_of(onset.astype("<f8")),
            "offsets": base64_of(offset.astype("<f8")),
            "frames": tagged.frames is not None,
            "others": len(values) - len(lanes),
            "lanes": [
                {
                    "label": tagger.classes[c],
                    "threshold": decisions.thresholds[c],
                    "scores": base64_of(values[c].astype("<f4")),
                }
                for c in lanes
            ],
        }
        stream.write(data_block(f"recording-{len(index['recordings'])}", content))
        best = [[tagger.classes[c], f"{strongest[c]:.2f}"] for c in lanes[:3]]
        index["recordings"].append({"name": str(tagged.path), "duration": duration, "strongest": best})

    head, foot = template()
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write(head)
        yield add
        stream.write(data_block("index", index) + foot)


def template() -> list[str]:
    """What is in front of the data and behind it. The page's own program is named in its policy, so no other runs."""
    text = TEMPLATE.read_text(encoding="utf-8")
    program = text[text.index("<script>") + len("<script>") : text.rindex("</script>")]
    return text.replace("PROGRAM_SHA256", base64_of(hashlib.sha256(program.encode()).digest())).split(PLACE)


def data_block(name: str, content: Any) -> str:
    """JSON in HTML, without a sign that HTML would read as its own."""
    text = re.sub("[<>&]", lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(content))
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def base64_of(content: bytes | np.ndarray) -> str:
    """The bytes of a file or an array as text."""
    return base64.b64encode(content.tobytes() if isinstance(content, np.ndarray) else content).decode()


def picture_of(tagged: Tagged, num_frames: int) -> bytes:
    """The spectrogram as a PNG, with no more columns than frames."""
    from matplotlib import colormaps
    from matplotlib.image import imsave

    columns = max(min(num_frames, PICTURE_COLUMNS), 1)
    picture = tagged.picture[:, np.arange(columns) * PICTURE_COLUMNS // columns]
    buffer = io.BytesIO()
    imsave(buffer, picture, cmap=colormaps["magma"].resampled(COLOURS), origin="lower", format="png")
    return buffer.getvalue()


def mp3_of(path: str | Path, sample_rate: int) -> bytes:
    """A recording as the network hears it: mono, and of its rate, or the next one that MP3 has. All browsers play MP3.

    The bit rate is constant, from which browsers know where a time is: Chromium within 0.1 s, in an hour too.

    Raises:
        UserError: it cannot be opened, or not read to its end.
    """
    rate = next((each for each in MP3_RATES if each >= sample_rate), MP3_RATES[-1])
    buffer = io.BytesIO()
    coding: Any = {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": MP3_LEVEL}
    with opened(path) as recording, soundfile.SoundFile(buffer, "w", rate, 1, **coding) as encoder:
        length = resampled_length(recording.frames, recording.samplerate, rate)
        for samples in windows(recording, range(0, length, BLOCK), BLOCK, rate):
            encoder.write(np.clip(samples, -1, 1))
    return buffer.getvalue()
