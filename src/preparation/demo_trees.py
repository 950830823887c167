"""Small trees in the layouts of ESC-50, AudioSet and VGGSound, filled from the demo corpus.

They are for trying the chain that works on those data sets. Names of files, columns and clips are as
in the official releases; the sounds are the demo corpus's: in ESC-50's tree its classes stand in for
the first of ESC-50's, in the other two the classes are its own.
"""

from __future__ import annotations

import csv
import string
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from src.errors import UserError
from src.preparation.catalogues import ESC50_CLASSES
from src.preparation.demo_corpus import SAMPLE_RATE
from src.utils.files import claim_folder, whole_file
from src.utils.progress import progress

ID_CHARACTERS = string.ascii_letters + string.digits + "-_"  # of a YouTube id, which has eleven
FOLDS = 5


def build_demo_trees(corpus: str | Path, folder: str | Path, clips: int, num_classes: int | None, seed: int) -> None:
    """Write `ESC-50/`, `AudioSet/` and `VGGSound/` below `folder`; files that are there already are kept.

    Args:
        corpus: the demo corpus, whose isolated events are used.
        clips: of each class in each split or fold.
        num_classes: the first so many of the corpus's classes; all if None.
        seed: equal seeds give equal files.

    Raises:
        UserError: no demo corpus in `corpus`, or the folder holds trees of another seed or size.
    """
    corpus, folder = Path(corpus), Path(folder)
    classes = sorted(entry.name for entry in (corpus / "isolated_events" / "train").glob("*/"))[:num_classes]
    if not classes:
        raise UserError(f"{corpus}: holds no demo corpus; make one with scripts/make_demo_corpus.py")
    claim_folder(folder, {"seed": seed, "clips": clips, "classes": classes}, "demo trees")
    with progress(len(classes) * clips * (FOLDS + 4), "small trees", "clip") as bar:
        for number, build in enumerate((build_esc50, build_audioset, build_vggsound)):
            build(corpus / "isolated_events", folder, classes, clips, np.random.default_rng((seed, number)), bar)


def build_esc50(events: Path, folder: Path, classes: Sequence[str], clips: int, rng: np.random.Generator, bar) -> None:
    """`ESC-50/audio/*.wav`, 5 s at 44.1 kHz, and `ESC-50/meta/esc50.csv`."""
    rows = []
    for fold in range(1, FOLDS + 1):
        for target, name in enumerate(classes):
            for take in range(clips):
                source = int(rng.integers(100_000))
                file = f"{fold}-{source}-{string.ascii_uppercase[take]}-{target}.wav"
                write_clip(folder / "ESC-50" / "audio" / file, [recording(events / "train" / name, 5.0, rng)])
                rows.append([file, fold, target, ESC50_CLASSES[target], False, source, string.ascii_uppercase[take]])
                bar.update()
    write_rows(
        folder / "ESC-50" / "meta" / "esc50.csv",
        [["filename", "fold", "target", "category", "esc10", "src_file", "take"], *rows],
    )


def build_audioset(
    events: Path, folder: Path, classes: Sequence[str], clips: int, rng: np.random.Generator, bar
) -> None:
    """`AudioSet/`: both segment CSVs, `class_labels_indices.csv`, and 10 s clips of one or two classes each."""
    machine_ids = [f"/m/demo{index:02d}" for index in range(len(classes))]
    write_rows(
        folder / "AudioSet" / "class_labels_indices.csv",
        [
            ["index", "mid", "display_name"],
            *([index, machine_ids[index], display_name(name)] for index, name in enumerate(classes)),
        ],
    )
    for split, name in (("train", "balanced_train"), ("eval", "eval")):
        lines = [
            "# Segments csv of the demo corpus",
            "# num_ytids, num_segs, num_unique_labels, num_positive_labels",
            "# YTID, start_seconds, end_seconds, positive_labels",
        ]
        for clip_id, start, index in drawn_clips(len(classes), clips, rng):
            also = int(rng.integers(len(classes)))
            present = sorted({index, also})
            parts = [recording(events / split / classes[one], 10.0, rng) for one in present]
            write_clip(folder / "AudioSet" / "clips" / name / f"{clip_id}_{start}.wav", parts)
            labels = ",".join(machine_ids[one] for one in present)
            lines.append(f'{clip_id}, {start}.000, {start + 10}.000, "{labels}"')
            bar.update()
        with whole_file(folder / "AudioSet" / f"{name}_segments.csv") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def build_vggsound(
    events: Path, folder: Path, classes: Sequence[str], clips: int, rng: np.random.Generator, bar
) -> None:
    """`VGGSound/vggsound.csv`, and 10 s clips of one class each."""
    rows = []
    for split, name in (("train", "train"), ("eval", "test")):
        for clip_id, start, index in drawn_clips(len(classes), clips, rng):
            write_clip(
                folder / "VGGSound" / "clips" / f"{clip_id}_{start:06d}.wav",
                [recording(events / split / classes[index], 10.0, rng)],
            )
            rows.append([clip_id, start, display_name(classes[index]), name])
            bar.update()
    write_rows(folder / "VGGSound" / "vggsound.csv", rows)


def drawn_clips(num_classes: int, clips: int, rng: np.random.Generator) -> Iterator[tuple[str, int, int]]:
    """(YouTube id, start in s, class index) of every clip of a split."""
    for index in range(num_classes):
        for _ in range(clips):
            yield "".join(rng.choice(list(ID_CHARACTERS), 11)), int(rng.integers(300)), index


def recording(folder: Path, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """(N,) samples: one of a class's events, again and again with pauses, at a random loudness."""
    files = sorted(folder.glob("*.wav"))
    event, _ = soundfile.read(files[rng.integers(len(files))], dtype="float32")
    samples = np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)
    start = int(rng.integers(SAMPLE_RATE))
    while start < len(samples):
        end = min(start + len(event), len(samples))
        samples[start:end] = event[: end - start]
        start = end + int(rng.integers(SAMPLE_RATE))
    return samples * np.float32(rng.uniform(0.2, 0.9))


def write_clip(path: Path, parts: Sequence[np.ndarray]) -> None:
    """Write the parts' mean as 16-bit stereo at twice their rate, as videos' sound tracks have it."""
    from scipy.signal import resample_poly

    if path.exists():
        return
    doubled = resample_poly(np.mean(parts, axis=0), 2, 1)  # (2N,)
    with whole_file(path) as temporary:
        soundfile.write(
            temporary, np.stack([doubled, doubled], axis=1).clip(-1, 1), 2 * SAMPLE_RATE, subtype="PCM_16", format="WAV"
        )


def write_rows(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


def display_name(name: str) -> str:
    """A class's name as the other data sets write theirs."""
    return name.replace("_and_", ", ").replace("_", " ")
