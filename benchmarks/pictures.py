"""Draws what predict.py and export_model.py make of a recording: a table's rows, a stream's lines, a file's speed.

    python benchmarks/pictures.py --ckpt_path RUN --audio recording.wav --folder docs

It writes tables.png, stream.png and deploy.png.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import _repository

from benchmarks.measuring import ROOT, in_turns
from benchmarks.tagging import seconds_of
from src import cli
from src.data.audio.files import encode, read_mono
from src.data.audio.stream import Input, opened_stream
from src.export.onnx_file import export_onnx
from src.models.checkpoint import read_checkpoint
from src.runs.folder import checkpoint_at
from src.tagging import Tagger
from src.tagging.found import decisions_of
from src.tagging.stream import bounds_of, told_of
from src.utils.pictures import blank_figure, draw_spectrogram, save_figure

WINDOW, HOP = 2.0, 0.5  # s, of the stream
CLIP = 5.0  # s, that is scored to see how long it takes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ckpt_path", required=True, help="a network of events")
    add("--audio", required=True, help="a recording")
    add("--folder", default=ROOT / "docs", type=Path, help="where the pictures go (docs)")
    add("--rounds", default=20, type=cli.positive(int), help="that times are medians of (20)")
    arguments = parser.parse_args()
    draw_table(arguments.ckpt_path, arguments.audio, arguments.folder / "tables.png")
    draw_stream(arguments.ckpt_path, arguments.audio, arguments.folder / "stream.png")
    draw_speed(arguments.ckpt_path, arguments.folder / "deploy.png", arguments.rounds)


def draw_table(ckpt_path: str, audio: str, path: Path) -> None:
    """The rows of a Raven table over the spectrogram."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "a.selections.txt")
        words = "--ckpt_path", ckpt_path, "--audio", audio, "--format", "raven", "--output", str(table)
        subprocess.run([sys.executable, ROOT / "predict.py", *words], check=True, stdout=subprocess.DEVNULL)
        with open(table, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
    tagger = Tagger(ckpt_path)
    tagged = tagger(audio)
    figure = blank_figure(9, 3)
    axes = figure.subplots()
    draw_spectrogram(axes, tagged.picture, tagger.features.frequencies, float(tagged.ends[-1]))
    for number, row in enumerate(rows):
        begin, end = float(row["Begin Time (s)"]), float(row["End Time (s)"])
        top = len(tagger.features.frequencies) * (0.95 - 0.1 * (number % 4))
        axes.axvspan(begin, end, fill=False, edgecolor="white", linewidth=1.2)
        axes.text(
            begin, top, f" {row['Class']} {row['Confidence'][:4]}", color="white", fontsize=7, va="top", clip_on=True
        )
    axes.set(xlabel="time (s)", title=f"predict.py --format raven: {len(rows)} selections", xlim=(0, tagged.ends[-1]))
    save_figure(figure, path, dpi=85)


def draw_stream(ckpt_path: str, audio: str, path: Path) -> None:
    """When events begin and end, and when a stream has told of it."""
    tagger = Tagger(ckpt_path, window=WINDOW, hop=HOP, drawn=False)
    samples = read_mono(audio, tagger.sample_rate)
    with tempfile.TemporaryFile() as file:
        file.write(encode(samples, tagger.sample_rate, "WAV"))
        file.seek(0)
        stream = opened_stream(Input(os.dup(file.fileno())), tagger.sample_rate)
        decisions = decisions_of(tagger)
        latest = bounds_of(tagger, stream, decisions).begins
        told = [(one, stream.seconds) for one in told_of(stream, tagger, decisions)]
    labels = sorted({tagger.classes[one.event.label] for one, _ in told})
    figure = blank_figure(9, 3.2)
    axes = figure.subplots()
    for one, at in told:
        event, row = one.event, labels.index(tagger.classes[one.event.label])
        when = event.offset if one.ended else event.onset
        axes.plot([when, at], [row, row], color="0.6", linewidth=1, zorder=1)
        axes.plot(at, row, "s" if one.ended else ">", color="C3" if one.ended else "C2", markersize=5)
        if one.ended:
            axes.barh(row, event.offset - event.onset, left=event.onset, height=0.5, color="C0", alpha=0.5)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    figure.suptitle(f"predict.py --stream: ▶ begins, ■ ends, each told at most {latest:.2f} s later")
    axes.set(xlabel="time (s)", xlim=(0, len(samples) / tagger.sample_rate + 0.2))
    save_figure(figure, path, dpi=110)


def draw_speed(ckpt_path: str, path: Path, rounds: int) -> None:
    """How long a clip takes in PyTorch and in ONNX Runtime, and how far their scores are apart."""
    torch.set_num_threads(1)
    tagger = Tagger(ckpt_path, drawn=False)
    samples = 0.1 * np.random.default_rng(0).standard_normal(round(CLIP * tagger.sample_rate)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    names, sizes, sessions = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for bits in (32, 16):
            file = Path(folder, f"{bits}.onnx")
            difference = export_onnx(checkpoint_at(ckpt_path), file, bits)
            names.append(f"ONNX, {bits} bits\nwithin {difference:.0e}")
            sizes.append(file.stat().st_size / 1e6)
            sessions.append(onnxruntime.InferenceSession(file, options))
    names, sizes = ["PyTorch", *names], [weights_of(ckpt_path), *sizes]
    works = [lambda: tagger.scores(samples, tagger.sample_rate)]
    works += [lambda session=session: session.run(None, {"waveform": samples[None]}) for session in sessions]
    found = in_turns({name: lambda work=work: seconds_of(work) for name, work in zip(names, works)}, rounds)
    figure = blank_figure(9, 2.2)
    for axes, values, unit in zip(
        figure.subplots(1, 2, sharey=True),
        ([1000 * statistics.median(found[name]) for name in names], sizes),
        ("ms", "MB"),
    ):
        axes.barh(names, values, color=["0.7", "C0", "C2"])
        axes.bar_label(axes.containers[0], fmt=f"%.1f {unit}", padding=3)
        axes.margins(x=0.2)
    figure.axes[0].set_xlabel(f"a clip of {CLIP:g} s, one thread")
    figure.axes[1].set_xlabel("weights, or the file")
    figure.axes[0].invert_yaxis()
    save_figure(figure, path, dpi=110)


def weights_of(ckpt_path: str) -> float:
    """MB of a network's weights in PyTorch."""
    return sum(tensor.nbytes for tensor in read_checkpoint(checkpoint_at(ckpt_path)).weights.values()) / 1e6


if __name__ == "__main__":
    cli.run(main)
