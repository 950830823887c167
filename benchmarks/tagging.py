"""How long tagging recordings takes beside the network's forward passes alone.

    python benchmarks/tagging.py

Noise of 44.1 kHz stereo is one long recording and several short ones, WAV and FLAC. The networks are untrained. They
have --threads threads. Five ways take turns:

- the forward passes alone, in the same batches, on inputs that lie in memory
- the same, while another process reads the files for nothing: what two cores that share a cache and a memory allow
- the tagger, which reads in workers
- the tagger, which reads in its own process
- a plain loop of soundfile, torchaudio, librosa and the network
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
import torchaudio.functional

import _repository

from benchmarks.literal import features
from benchmarks.measuring import ROOT, in_turns, machine, print_table
from src import cli
from src.config.loading import load_config
from src.data.audio.opening import opened
from src.models.registry import create
from src.models.torch_files import write_torch_file
from src.tagging import Tagger
from src.tagging.inputs import pieces_of_files

CFGS = {"ResNet-18": "cfgs_v2/demo/resnet_18_lmdb.cfg", "efficient": "cfgs_v2/efficient/demo.cfg"}
RATE, CHANNELS, SHORT = 44100, 2, 10.0  # Hz, channels, s of a short recording


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--seconds", type=cli.positive(float), default=600.0, help="of the long recording, and of all short ones (600)")
    add("--threads", type=cli.positive(int), default=1, help="of the network (1)")
    add("--num_workers", type=cli.positive(int), default=1, help="processes that read (1)")
    add("--networks", nargs="+", choices=CFGS, default=list(CFGS), help="which to measure (all)")
    add("--rounds", type=cli.positive(int), default=5, help="that figures are medians of (5)")
    arguments = parser.parse_args()
    print(machine())
    print(f"threads {arguments.threads}, workers {arguments.num_workers}, {arguments.seconds:g} s of sound")
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        for suffix in ("wav", "flac"):
            sets = recordings(Path(name), suffix, arguments.seconds)
            for network in arguments.networks:
                tagger = untrained(Path(name), CFGS[network])
                for what, files in sets.items():
                    found = in_turns(ways(tagger, files, arguments.num_workers), arguments.rounds)
                    print_table(
                        (f"{network}, {what}", "s", "of the forward passes", "hours of audio a minute"),
                        rows(found, arguments.seconds),
                    )


def recordings(folder: Path, suffix: str, seconds: float) -> dict[str, list[Path]]:
    """One file of so many seconds, and as many short ones as last as long together."""
    rng, length = np.random.default_rng(0), round(seconds * RATE)
    noise = (0.1 * rng.standard_normal((length, CHANNELS))).astype(np.float32)
    long = folder / f"long.{suffix}"
    soundfile.write(long, noise, RATE, subtype="PCM_16")
    short = [folder / f"{number}.{suffix}" for number in range(max(round(seconds / SHORT), 1))]
    for number, file in enumerate(short):
        soundfile.write(file, noise[round(number * SHORT * RATE) :][: round(SHORT * RATE)], RATE, subtype="PCM_16")
    return {f"one long .{suffix}": [long], f"{len(short)} short .{suffix}": short}


def untrained(folder: Path, cfg: str) -> Tagger:
    """A tagger of random weights."""
    config = load_config(ROOT / cfg, [f"data.meta_root={ROOT / 'tests' / 'fixtures'}"])
    model = config.model
    network = create(
        model.arch,
        model.model_depth,
        model.num_classes,
        model.im_size,
        model.pool,
        model.frame_stride(config.audio_config),
        model.head,
    )
    names = {f"class {number}": number for number in range(model.num_classes)}
    record = {"cfg": config.as_dict(), "lbl_map": names, "seed": 0}
    state = {f"net.{name}": value for name, value in network.state_dict().items()}
    write_torch_file(folder / "network.ckpt", {"hyper_parameters": record, "state_dict": state})
    return Tagger(folder / "network.ckpt", drawn=False)  # as predict.py without --plot and --html


def ways(tagger: Tagger, files: Sequence[Path], num_workers: int) -> dict[str, Callable[[], float]]:
    """What is measured: each gives the seconds that it took."""
    batches = []
    for file in files:
        with opened(file) as recording:
            batches += [piece.inputs for piece in tagger.inputs.pieces(recording)]

    def forward() -> None:
        for batch in batches:
            tagger.outputs(batch)

    def forward_beside_reader() -> float:
        reader = multiprocessing.get_context("fork").Process(target=read_for_ever, args=(tagger, files), daemon=True)
        reader.start()
        time.sleep(0.2)  # until it reads
        taken = seconds_of(forward)
        reader.kill()
        reader.join()
        return taken

    return {
        "forward passes alone": lambda: seconds_of(forward),
        "forward passes beside a reader": forward_beside_reader,
        "tagger, workers": lambda: seconds_of(lambda: list(tagger.of_files(files, num_workers))),
        "tagger, one process": lambda: seconds_of(lambda: list(tagger.of_files(files))),
        "plain loop": lambda: seconds_of(lambda: plain_loop(tagger, files)),
    }


def read_for_ever(tagger: Tagger, files: Sequence[Path]) -> None:
    """Make inputs that nobody gets."""
    torch.set_num_threads(1)  # as in a loader worker
    while True:
        for _ in pieces_of_files(tagger.inputs, files, 0):
            pass


def plain_loop(tagger: Tagger, files: Sequence[Path]) -> None:
    """As one would write it down: read, resample, cut, transform, score."""
    window, hop, rate = tagger.inputs.window, tagger.inputs.hop, tagger.sample_rate
    for file in files:
        samples, found = soundfile.read(file, dtype="float32", always_2d=True)
        mono = torchaudio.functional.resample(torch.from_numpy(samples.mean(axis=1)), found, rate).numpy()
        for start in range(0, max(len(mono) - window, 0) + hop, hop):
            tagger.outputs(torch.from_numpy(seen(tagger, mono[start : start + window]))[None, None])


def seen(tagger: Tagger, samples: np.ndarray) -> np.ndarray:
    """(F, T) float32 by librosa."""
    extractor = tagger.features
    if extractor.feature == "spectrogram":
        return features(samples).astype(np.float32)
    mels = librosa.feature.melspectrogram(
        y=samples,
        sr=extractor.sample_rate,
        n_fft=extractor.n_fft,
        hop_length=extractor.hop_len,
        n_mels=extractor.n_mels,
    )
    return librosa.power_to_db(mels, top_db=None).astype(np.float32)


def seconds_of(work: Callable[[], object]) -> float:
    """What it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rows(found: dict[str, list[float]], seconds: float) -> list[tuple[str, ...]]:
    """A row of text for each way. Ratios are of the same round."""
    alone = found["forward passes alone"]
    return [
        (
            name,
            f"{statistics.median(taken):.2f}",
            f"{statistics.median(one / other for one, other in zip(taken, alone)):.3f}",
            f"{seconds / 60 / statistics.median(taken):.2f}",
        )
        for name, taken in found.items()
    ]


if __name__ == "__main__":
    cli.run(main)
