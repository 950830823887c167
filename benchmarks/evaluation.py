"""How long the evaluation of K checkpoints takes beside its parts: one pass over the clips, and K networks.

    python benchmarks/evaluation.py

On clips of noise, with freshly initialised networks. In turns, so that what else the machine does falls on all:

- data: the loader alone, without a network
- forwards: K networks on batches in memory, nothing else
- evaluation: all that `eval_gise_mixtures.py --exp_dir` does once its libraries are imported
- what of it went into scores and rows

The first ratio is evaluation / (data + forwards), the second leaves scores and rows out: of few clips they take a
share that they do not have of many. Then the whole command's memory at its peak, of K = 1 and of the largest K:
private pages of all its processes, no mapped files.
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import _repository

from benchmarks.measuring import machine, print_table, run
from benchmarks.packing import make_clips
from src import cli

NUM_CLASSES = 51
SECONDS = 5  # of a clip
CLASSES = {f"class {index}": index for index in range(NUM_CLASSES)}  # as make_clips labels its clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--clips", type=cli.positive(int), default=160, help="of five seconds (160)")
    add("--checkpoints", type=cli.positive(int), nargs="+", default=[1, 4, 10], help="numbers K to measure (1 4 10)")
    add("--arch", default="cifar_resnet", help="of the networks (cifar_resnet)")
    add("--depth", default="20", help="of the networks, such as 18 or b1 (20)")
    add("--num_workers", type=cli.count, default=os.cpu_count(), help="loader processes (one a core)")
    add("--runs", type=cli.positive(int), default=3, help="of which medians are taken (3)")
    arguments = parser.parse_args()
    logging.getLogger("src").setLevel(logging.WARNING)
    print(
        f"{machine()}\n{arguments.clips} clips, {arguments.arch} {arguments.depth}, {arguments.num_workers} loader "
        f"processes, medians of {arguments.runs}"
    )
    counts = sorted(set(arguments.checkpoints))
    with tempfile.TemporaryDirectory() as folder:
        folder = make_experiments(Path(folder), arguments.clips, counts, arguments.arch, arguments.depth)
        print_table(
            ("K", "data, s", "forwards, s", "evaluation, s (range)", "of it scores, s", "ratio", "without scores"),
            measured(folder, counts, arguments.num_workers, arguments.runs),
        )
        print_table(
            ("K", "peak private memory, MB"), peaks(folder, sorted({counts[0], counts[-1]}), arguments.num_workers)
        )


def peaks(folder: Path, counts: list[int], workers: int) -> Iterator[tuple[str, str]]:
    """Rows of the whole command's memory."""
    for count in counts:
        cost = run(
            "eval_gise_mixtures.py",
            "--exp_dir",
            folder / str(count),
            "--lmdb_path",
            folder / "clips.lmdb",
            "--lbl_map",
            folder / "lbl_map.json",
            "--results_csv",
            folder / f"memory_{count}.csv",
            "--num_workers",
            workers,
        )
        yield str(count), f"{cost.private / 1e6:.0f}"


def measured(folder: Path, counts: list[int], workers: int, runs: int) -> list[tuple[str, ...]]:
    """A row of text for each K."""
    timed_evaluation(folder, counts[0], workers, "warm_up.csv")
    data: list[float] = []
    forwards: dict[int, list[float]] = {count: [] for count in counts}
    whole: dict[int, list[float]] = {count: [] for count in counts}
    scores: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(runs):
        data.append(seconds(lambda: list(all_batches(folder, workers))))
        each = seconds_of_forwards(folder, counts[-1])
        for count in counts:
            forwards[count].append(sum(each[:count]))
            taken, of_it = timed_evaluation(folder, count, workers, f"results_{number}_{count}.csv")
            whole[count].append(taken)
            scores[count].append(of_it)
    rows = []
    for count in counts:
        parts = [one + many for one, many in zip(data, forwards[count])]
        ratios = [taken / part for taken, part in zip(whole[count], parts)]
        without = [(taken - of_it) / part for taken, of_it, part in zip(whole[count], scores[count], parts)]
        middle = [f"{statistics.median(values):.2f}" for values in (data, forwards[count], whole[count], scores[count])]
        middle[2] += f" ({min(whole[count]):.2f} … {max(whole[count]):.2f})"
        rows.append((str(count), *middle, *(f"{statistics.median(values):.3f}" for values in (ratios, without))))
    return rows


def timed_evaluation(folder: Path, count: int, workers: int, results_csv: str) -> tuple[float, float]:
    """Seconds of an evaluation of the first `count` checkpoints, and what of them went into scores and rows."""
    from src import evaluation

    write_up, scores = evaluation.write_up, []

    def timed(*arguments) -> None:
        scores.append(seconds(lambda: write_up(*arguments)))

    with mock.patch.object(evaluation, "write_up", timed):
        taken = seconds(lambda: evaluation.evaluate(evaluation_options(folder, count, workers, results_csv)))
    return taken, sum(scores)


def seconds(work: Callable[[], object]) -> float:
    """What the work takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def all_batches(folder: Path, workers: int):
    """The clips as an evaluation has them."""
    import torch

    from src.models.checkpoint import read_checkpoint
    from src.scoring.forward_pass import batches_of
    from src.scoring.predictions import open_for

    options = evaluation_options(folder, 1, workers, "unused.csv")
    dataset = open_for(read_checkpoint(checkpoints(folder)[0]), options)
    return batches_of(dataset, options.batch_size, workers, torch.device("cpu"))


def seconds_of_forwards(folder: Path, count: int) -> list[float]:
    """Of each network, over batches that are in memory. What warms up is not counted."""
    import torch

    from src.models.checkpoint import read_checkpoint

    batches = [batch.inputs for batch in all_batches(folder, 0)]
    found = []
    with torch.inference_mode():
        for path in checkpoints(folder)[:count]:
            network = read_checkpoint(path).network().eval()
            network(batches[0])
            found.append(seconds(lambda network=network: [network(inputs) for inputs in batches]))
    return found


def evaluation_options(folder: Path, count: int, workers: int, results_csv: str):
    """As of the command line with the first `count` checkpoints, on the CPU."""
    from src.evaluation import EvaluationOptions

    return EvaluationOptions(
        str(folder / "clips.lmdb"),
        str(folder / "lbl_map.json"),
        exp_dir=str(folder / str(count)),
        results_csv=str(folder / results_csv),
        num_workers=workers,
    )


def checkpoints(folder: Path) -> list[Path]:
    """All of them."""
    return sorted((folder / "all").glob("*.ckpt"))


def make_experiments(folder: Path, clips: int, counts: list[int], arch: str, depth: str) -> Path:
    """clips.lmdb, lbl_map.json, and for each K a folder of that name that holds an experiment of K checkpoints."""
    make_clips(folder / "clips", clips, SECONDS)
    run("pack_mixtures_into_lmdb.py", "--mixture_dir", folder / "clips", "--lmdb_path", folder / "clips.lmdb")
    (folder / "lbl_map.json").write_text(json.dumps(CLASSES))
    cfg = {
        "model": {
            "arch": arch,
            "model_depth": int(depth) if depth.isdigit() else depth,
            "num_classes": NUM_CLASSES,
            "type": "multilabel",
        },
        "opt": {"optimizer": "Adam", "lr": 1e-3, "batch_size": 32},
        "audio_config": {},
        "data": {"label_map": "lbl_map.json", "train_lmdb": "train.lmdb", "val_lmdb": "val.lmdb"},
    }
    for number in range(counts[-1]):
        path = folder / "all" / f"epoch={number:02d}_train_loss=0.500_val_mAP=0.500.ckpt"
        write_checkpoint(path, cfg, CLASSES, seed=number)
        for count in counts:
            if number < count:
                (there := folder / str(count) / "mixup" / "net" / "ckpts").mkdir(parents=True, exist_ok=True)
                os.link(path, there / path.name)
    return folder


def write_checkpoint(path: Path, cfg: dict, label_map: dict[str, int], seed: int) -> Path:
    """A checkpoint as a training run writes it, an optimiser's state included, of a network with random tensors."""
    import torch

    from src.models.registry import create
    from src.models.weights import NETWORK

    torch.manual_seed(seed)
    model = cfg["model"]
    state = create(model["arch"], model["model_depth"], model["num_classes"]).state_dict()
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
    moments = {
        index: {name: torch.zeros_like(value) for name in ("exp_avg", "exp_avg_sq")}
        for index, value in enumerate(state.values())
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "state_dict": {NETWORK + name: value for name, value in state.items()},
            "hyper_parameters": {"cfg": cfg, "lbl_map": label_map, "seed": seed},
            "optimizer_states": [{"state": moments, "param_groups": []}],
        },
        path,
    )
    return path


if __name__ == "__main__":
    cli.run(main)
