"""Small trees in the layouts of ESC-50, AudioSet and VGGSound, filled from the demo corpus.

They are for trying the chain that works on those data sets. Names of files, columns and clips are as
in the official releases. The sounds are the demo corpus's. In ESC-50's tree its classes stand in for
the first of ESC-50's, in the other two the classes are its own.
"""

import csv
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.data.audio.files import encode, read_audio
from src.errors import UserError
from src.preparation.catalogues import ESC50_CLASSES
from src.preparation.demo_corpus import SAMPLE_RATE
from src.utils.files import claim_folder, whole_file, write_whole
from src.utils.progress import progress

ID_CHARACTERS = string.ascii_letters + string.digits + "-_"  # of a YouTube id, which has eleven
FOLDS = 5


def build_demo_trees(corpus: str | Path, folder: str | Path, clips: int, num_classes: int | None, seed: int) -> None:
    """Write `ESC-50/`, `AudioSet/` and `VGGSound/` below `folder`. Files that are there already are kept.

    Args:
        corpus: the demo corpus, whose isolated events are used.
        clips: of each class in each split or fold.
        num_classes: the first so many of the corpus's classes, or all if None.
        seed: equal seeds give equal files.

    Raises:
        UserError: no demo corpus in `corpus`, or the folder holds trees of another seed or size.
    """
    corpus, folder = Path(corpus), Path(folder)
    classes = sorted(entry.name for entry in (corpus / "isolated_events" / "train").glob("*/"))[:num_classes]
    if not classes:
        raise UserError(f"{corpus}: holds no demo corpus. Make one with scripts/make_demo_corpus.py")
    claim_folder(folder, {"seed": seed, "clips": clips, "classes": classes}, "demo trees")
    with progress(len(classes) * clips * (FOLDS + 4), "small trees", "clip") as bar:
        trees = DemoTrees(corpus / "isolated_events", folder, classes, clips, bar)
        for number, build in enumerate((trees.build_esc50, trees.build_audioset, trees.build_vggsound)):
            build(np.random.default_rng((seed, number)))


@dataclass
class DemoTrees:
    """What the trees share."""

    events: Path  # <split>/<class>/*.wav
    folder: Path  # of the trees
    classes: Sequence[str]
    clips: int  # of each class in each split or fold
    bar: tqdm  # counts clips

    def build_esc50(self, rng: np.random.Generator) -> None:
        """`ESC-50/audio/*.wav`, 5 s at 44.1 kHz, and `ESC-50/meta/esc50.csv`."""
        rows: list[Sequence[object]] = [["filename", "fold", "target", "category", "esc10", "src_file", "take"]]
        for fold in range(1, FOLDS + 1):
            for target, name in enumerate(self.classes):
                for take in string.ascii_uppercase[: self.clips]:
                    source = int(rng.integers(100_000))
                    file = f"{fold}-{source}-{take}-{target}.wav"
                    self.write_clip(f"ESC-50/audio/{file}", "train", [name], 5.0, rng)
                    rows.append([file, fold, target, ESC50_CLASSES[target], False, source, take])
        write_rows(self.folder / "ESC-50" / "meta" / "esc50.csv", rows)

    def build_audioset(self, rng: np.random.Generator) -> None:
        """`AudioSet/`: both segment CSVs, `class_labels_indices.csv`, and 10 s clips of one or two classes each."""
        class_ids = [f"/m/demo{index:02d}" for index in range(len(self.classes))]
        labels = zip(range(len(self.classes)), class_ids, map(display_name, self.classes))
        columns = ("index", "mid", "display_name")
        write_rows(self.folder / "AudioSet" / "class_labels_indices.csv", [columns, *labels])
        for split, name in (("train", "balanced_train"), ("eval", "eval")):
            lines = [
                "# Segments csv of the demo corpus",
                "# num_ytids, num_segs, num_unique_labels, num_positive_labels",
                "# YTID, start_seconds, end_seconds, positive_labels",
            ]
            for clip_id, start, index in self.drawn_clips(rng):
                present = sorted({index, int(rng.integers(len(self.classes)))})
                names = [self.classes[one] for one in present]
                self.write_clip(f"AudioSet/clips/{name}/{clip_id}_{start}.wav", split, names, 10.0, rng)
                label = ",".join(class_ids[one] for one in present)
                lines.append(f'{clip_id}, {start}.000, {start + 10}.000, "{label}"')
            write_whole(self.folder / "AudioSet" / f"{name}_segments.csv", "\n".join(lines) + "\n")

    def build_vggsound(self, rng: np.random.Generator) -> None:
        """`VGGSound/vggsound.csv`, and 10 s clips of one class each."""
        rows = []
        for split, name in (("train", "train"), ("eval", "test")):
            for clip_id, start, index in self.drawn_clips(rng):
                file = f"VGGSound/clips/{clip_id}_{start:06d}.wav"
                self.write_clip(file, split, [self.classes[index]], 10.0, rng)
                rows.append([clip_id, start, display_name(self.classes[index]), name])
        write_rows(self.folder / "VGGSound" / "vggsound.csv", rows)

    def drawn_clips(self, rng: np.random.Generator) -> Iterator[tuple[str, int, int]]:
        """(YouTube id, start in s, class index) of every clip of a split."""
        for index in range(len(self.classes)):
            for _ in range(self.clips):
                yield "".join(rng.choice(list(ID_CHARACTERS), 11)), int(rng.integers(300)), index

    def write_clip(self, file: str, split: str, names: Sequence[str], seconds: float, rng: np.random.Generator) -> None:
        """Write the mean of the classes' sounds as 16-bit stereo at twice their rate, as videos have it."""
        from scipy.signal import resample_poly

        parts = [recording(self.events / split / name, seconds, rng) for name in names]
        self.bar.update()
        if (self.folder / file).exists():
            return
        doubled = resample_poly(np.mean(parts, axis=0), 2, 1)  # (2N,)
        stereo = np.stack([doubled, doubled], axis=1).clip(-1, 1)  # (2N, 2)
        write_whole(self.folder / file, encode(stereo, 2 * SAMPLE_RATE, "WAV"))


def recording(folder: Path, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """(N,) samples: one of a class's events, again and again with pauses, at a random loudness."""
    files = sorted(folder.glob("*.wav"))
    event = read_audio(files[rng.integers(len(files))])[0][:, 0]
    samples = np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)
    start = int(rng.integers(SAMPLE_RATE))
    while start < len(samples):
        end = min(start + len(event), len(samples))
        samples[start:end] = event[: end - start]
        start = end + int(rng.integers(SAMPLE_RATE))
    return samples * np.float32(rng.uniform(0.2, 0.9))


def write_rows(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


def display_name(name: str) -> str:
    """A class's name as the other data sets write theirs."""
    return name.replace("_and_", ", ").replace("_", " ")
