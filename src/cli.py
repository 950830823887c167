"""What the command lines share: flags, logging, and one clear line for a mistake of the user's."""

import argparse
import dataclasses
import itertools
import logging
import math
import os
import re
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from src.errors import UserError
from src.utils.limits import in_words
from src.utils.processes import TIME_TO_REPORT, Part, is_first
from src.utils.streams import standard_streams

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from src.evaluation import EvaluationOptions
    from src.run_plan import TrainingOptions
    from src.runs.devices import Devices

Options = TypeVar("Options", bound="DataclassInstance")

log = logging.getLogger(__name__)

ONE_CHECKPOINT = (
    "checkpoint, of this project, released in 2021 or a bundle (scripts/export_model.py), or a run folder: its best one"
)
FRAMES = (
    "frames, from the clip's centre, by default as published: 501 of clips up to 5 s, 1001 of longer ones. Of "
    "log-mels, all of the longest clip"
)
LABEL_MAP = "label map that the checkpoint was trained with, by default the one it carries"

LONGEST_LINE = 1500  # characters of an error message

# Lightning's and PyTorch's warnings that say nothing to users here.
NEEDLESS_WARNINGS = (
    "does not have many workers|smaller than the logging interval|LeafSpec|dataloader is not resumable|"
    "sync_dist=True.* when logging on epoch level|This DataLoader will create"
)


def run(main: Callable[[], None]) -> None:
    """Call a script's `main` and exit: 0 when it ends well, 1 on an error of the user's, 130 on Ctrl-C.

    A run that another signal ended in order exits with 128 and that signal's number.
    """
    script = os.path.basename(sys.argv[0])
    try:
        with standard_streams():
            _set_up_logging()
            with _plain_interrupts():
                main()
    except UserError as error:
        sys.exit(f"{script}: error: {_shortened(_one_line(error))}")
    except (MemoryError, RuntimeError, OSError) as error:
        line = in_words(error)
        if line is None and isinstance(error, OSError) and (error.filename or error.errno):
            line = f"{error.filename}: " * bool(error.filename) + (error.strerror or str(error))
        if line is None:
            raise
        sys.exit(f"{script}: error: {_shortened(line)}")
    except KeyboardInterrupt as interrupt:
        log.info("%s: interrupted. What was complete is kept", script)
        sys.exit(128 + getattr(interrupt, "signum", signal.SIGINT))


@contextmanager
def _plain_interrupts() -> Iterator[None]:
    """Raise a KeyboardInterrupt for what a library makes of Ctrl-C: in an import it may be any other error."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing)
    try:
        yield
    except UserError:
        raise
    except Exception:
        if select.select([reading], [], [], 0)[0] and signal.SIGINT in os.read(reading, 1 << 16):
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO if is_first() else logging.ERROR, format="%(message)s", stream=sys.stderr)
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, *_: str(message)
    warnings.filterwarnings("ignore", message=f".*({NEEDLESS_WARNINGS})")
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities"):
        logging.getLogger(name).setLevel(logging.WARNING)


def require_all_done(problems: Sequence[str], what: str) -> None:
    """Say what is wrong with each item that could not be done, and end with their number.

    Raises:
        UserError: there are such items.
    """
    for problem in problems:
        log.error("%s", problem)
    if problems:
        raise UserError(f"{len(problems)} of {what}. See above")


def _shortened(line: str) -> str:
    """A line that quotes a value or a name of any length, with its middle left out where that is too long."""
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 500]} … {line[-500:]}"


def _one_line(error: Exception) -> str:
    """The message itself. PyTorch puts a loader worker's whole traceback before it, and names may hold line breaks."""
    lines = str(error).strip().splitlines()
    return re.sub(r"^src(\.\w+)+: ", "", lines[-1]) if lines[0].startswith("Caught ") else " ".join(lines)


class Parser(argparse.ArgumentParser):
    """A command line. Its help shows defaults, no value is empty, and a leading `~` means the home folder."""

    def __init__(self, description: str | None = None):
        super().__init__(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        self.register("type", None, lambda value: os.path.expanduser(text(value)))  # without a type of their own


def positive(kind: type) -> Callable[[str], Any]:
    """An argparse type: a number above 0. `5e9` is a whole number too."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not 0 < value < float("inf") or (kind is int and value != int(value)):
            raise argparse.ArgumentTypeError(f"{text} is not a {'whole ' if kind is int else ''}number above 0")
        return kind(value)

    return parse


def finite(text: str) -> float:
    """An argparse type: a number, but neither nan nor infinity, which compare with nothing."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def count(text: str) -> int:
    """An argparse type: 0, 1, 2, …"""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def fraction(text: str) -> float:
    """An argparse type: a number above 0 and at most 1."""
    value = positive(float)(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} is above 1")
    return value


def seed(text: str) -> int:
    """An argparse type: a seed as PyTorch takes it, of 64 bits."""
    value = count(text)
    if value.bit_length() > 64:
        raise argparse.ArgumentTypeError(f"{_shortened(text)} is above {2**64 - 1}, the largest seed")
    return value


def text(value: str) -> str:
    """An argparse type: text that is not empty."""
    if not value:
        raise argparse.ArgumentTypeError("is empty")
    return value


def path_list(text: str) -> list[str]:
    """An argparse type: paths separated by `;`."""
    parts = text.split(";")
    paths = [os.path.expanduser(part.strip()) for part in parts if part.strip()]
    if not paths:
        raise argparse.ArgumentTypeError("no path given")
    if not all(map(os.path.exists, paths)):
        for start, end in itertools.combinations(range(len(parts) + 1), 2):
            name = ";".join(parts[start:end]).strip()
            if end > start + 1 and os.path.exists(name):
                cause = "has ';' in its own name, which stands between paths here"
                raise argparse.ArgumentTypeError(f"{name!r} {cause}. Rename it, or make a link with another name")
    return paths


def kept(text: str) -> str | int:
    """An argparse type: `all`, `last`, or how many of the best."""
    return text if text in ("all", "last") else positive(int)(text)


def part(text: str) -> Part:
    """An argparse type: `K/N`, or `slurm`."""
    try:
        return Part.of_slurm(os.environ) if text == "slurm" else Part.parse(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def device_list(text: str) -> list[int]:
    """An argparse type: GPU indices such as "0" or "0, 1, 2, 3"."""
    try:
        indices = [int(part) for part in text.split(",") if part.strip()]
        if not indices or min(indices) < 0 or len(set(indices)) != len(indices):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different GPU indices such as '0, 1'") from None
    return indices


def training_parser(description: str, random_clip_size: int = 500, val_clip_size: int = 1000) -> Parser:
    """The flags of every training script, for `training_options`."""
    parser = Parser(description)
    add = parser.add_argument
    add("--cfg_file", required=True, help="experiment configuration")
    add("--expdir", "-e", required=True, help="run folder: checkpoints in ckpts/, logs in logs/")
    add("--epochs", type=positive(int), default=100, help="train for so many epochs")
    add("--num_workers", type=count, default=4, help="loader processes, or 0 to load in the main process")
    add("--prefetch_factor", type=positive(int), default=4, help="batches each worker prepares ahead")
    add("--cw", help="file with a tensor of class weights (torch.save)")
    add("--resume_from", help="checkpoint to resume from, by default the run folder's last one")
    gpus = "GPU indices, such as '0, 1, 2, 3', by default 0 or the first --devices. Without GPUs, the CPU"
    add("--gpus", type=device_list, help=gpus)
    add("--accelerator", choices=("auto", "cpu", "gpu"), default="auto", help="auto: GPUs where there are any")
    devices = "processes on each node, each with a GPU of its own or on the CPU, by default as many as --gpus, or 1"
    add("--devices", type=positive(int), metavar="N", help=devices)
    add("--num_nodes", type=positive(int), default=1, metavar="N", help="nodes, all with the same --devices")
    precision = "of the network's arithmetic, by default 32. On a CPU, 16-mixed is 32"
    add("--precision", choices=("32", "16-mixed", "bf16-mixed"), help=precision)
    add("--fp16", action="store_true", help="the same as --precision 16-mixed")
    add("--compile", action="store_true", help="compile the network (torch.compile)")
    synchronised = "take batch norm's statistics over the batches of all processes (GPUs alone)"
    add("--sync_batchnorm", action="store_true", help=synchronised)
    add("--random_clip_size", type=positive(int), default=random_clip_size, help="frames of a training clip")
    add("--val_clip_size", type=positive(int), default=val_clip_size, help="frames of a validation clip")
    add("--use_mixup", action="store_true", help="mix the training batches (multilabel)")
    add("--use_mixers", action="store_true", help="retired, and refused")
    add("--mixer_prob", type=float, default=0.75, help="retired with --use_mixers")
    add("--seed", type=seed, help="fixes the run. By default it is drawn at random and recorded")
    override = "override a value of the cfg, such as data.train_lmdb=mixtures_lmdb/train_5k.lmdb. May be repeated"
    add("--set", dest="overrides", metavar="SECTION.KEY=VALUE", action="append", default=[], help=override)
    add("--check_data", action="store_true", help="read and decode all records before training, as check_lmdb.py does")
    root = "folder that the cfg's relative paths start from, by default $GISE_DATA_ROOT, else the current folder"
    add("--data_root", help=root)
    start = "weights to start from, in place of the cfg's model.pretrained: exported ones, a checkpoint or a run folder"
    add("--pretrained", metavar="PATH", help=start)
    validates = (
        "what chooses the checkpoint: the cfg's val_lmdb or the fold, as published, or clips held out of training"
    )
    add("--protocol", dest="validation", choices=("published", "held_out"), default="published", help=validates)
    add_clip_flags(parser)
    accumulate = (
        "batches whose gradients make one step: with 1 GPU and 4, a step is as with 4 GPUs. By default 1, or what "
        "keeps the steps of a resumed run"
    )
    add("--accumulate_grad_batches", type=positive(int), metavar="N", help=accumulate)
    every = "also save the state within an epoch every N steps. With 0 only after an epoch and when interrupted"
    add("--checkpoint_every_n_steps", type=count, default=0, metavar="N", help=every)
    keep = "checkpoints to keep: every epoch's, the last one, or those of the K best epochs"
    add("--keep", type=kept, default="all", metavar="all|last|K", help=keep)
    return parser


def add_clip_flags(parser: Parser) -> None:
    """How clips are read, in training and in evaluation."""
    add = parser.add_argument
    where = "make spectrograms on the network's device, in batches, or in the loader's workers. auto: on a GPU if any"
    add("--features", choices=("auto", "device", "workers"), default="auto", help=where)
    skip = "decode all records first, list those that cannot be used and leave them out, instead of stopping"
    add("--skip_bad_records", action="store_true", help=skip)
    cache = "keep all clips decoded: in files of this folder, twice as large as the LMDBs, or on the network's device"
    add("--cache_samples", metavar="FOLDER|device", help=cache)


def options_of(kind: type[Options], arguments: argparse.Namespace, **more: Any) -> Options:
    """A dataclass of options whose fields have the names of parsed flags.

    Args:
        more: fields that are no flags, or differ from them.
    """
    flags = vars(arguments) | more
    return kind(**{field.name: flags[field.name] for field in dataclasses.fields(kind) if field.name in flags})


def training_options(arguments: argparse.Namespace, **more: Any) -> "TrainingOptions":
    """The options of a training script's parsed flags.

    Raises:
        UserError: for the retired mixers, and for devices that are not here.
    """
    from src.run_plan import TrainingOptions  # PyTorch takes seconds to import, and --help need not wait

    if arguments.use_mixers:
        raise UserError("--use_mixers: background mixers are retired. Use --use_mixup, as the published runs did")
    overrides = tuple(arguments.overrides)
    return options_of(TrainingOptions, arguments, devices=_devices(arguments), overrides=overrides, **more)


def _devices(arguments: argparse.Namespace) -> "Devices":
    """The devices of parsed flags. What is wrong with them is said by one process of each node."""
    from src.runs.devices import choose_devices

    precision = arguments.precision or ("16-mixed" if arguments.fp16 else "32")
    try:
        if arguments.fp16 and precision != "16-mixed":
            raise UserError(f"--precision {precision}: --fp16 asks for 16-mixed. Leave one of the two flags out")
        asked_for = arguments.gpus, arguments.accelerator, arguments.devices, arguments.num_nodes
        return choose_devices(*asked_for, precision, arguments.compile, arguments.sync_batchnorm)
    except UserError:
        if any(os.environ.get(name, "0") != "0" for name in ("LOCAL_RANK", "SLURM_LOCALID")):
            time.sleep(TIME_TO_REPORT)
            sys.exit(1)
        raise


def add_preparation_flags(parser: Parser, out_dir: str) -> None:
    """What the scripts that prepare a data set share."""
    add = parser.add_argument
    add("--out_dir", default=out_dir, help="folder for flac/, lmdbs/ and meta/")
    add("--num_workers", type=positive(int), default=1, help="processes")
    add("--map_size", type=positive(float), default=5e9, help="bytes an LMDB may grow to at first, such as 2e10")


def add_part_flag(parser: Parser, whole: str) -> None:
    """The flag of scripts whose work several machines share.

    Args:
        whole: what is divided.
    """
    meaning = f"do part K, 1 to N, of {whole}. slurm: the part that this task of a job array is. By default all"
    parser.add_argument("--part", type=part, metavar="K/N", help=meaning)


def evaluation_parser(description: str, num_timesteps: int | None = None) -> Parser:
    """The flags of the evaluation scripts, for `evaluation_options`.

    Args:
        num_timesteps: frames of a clip by default. Otherwise the clips' length decides.
    """
    parser = Parser(description)
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--ckpt_path", help=ONE_CHECKPOINT)
    what.add_argument("--exp_dir", help="all checkpoints of a run folder, or of those at any depth below this folder")
    add("--lbl_map", help=LABEL_MAP)
    add_storage_flags(parser, required=False)
    frames = "frames, from the clip's centre" if num_timesteps else FRAMES
    add("--num_timesteps", type=positive(int), default=num_timesteps, help=frames)
    add("--results_csv", default="results.csv", help="table to write. Rows of other checkpoints in it are kept")
    export = "write each checkpoint's weights as a .pth, without --lmdb_path and --manifest of unscored ones too"
    add("--export_weights", action="store_true", help=export)
    add("--export_dir", default="exported_weights", help="folder for --export_weights")
    overlap = "also score clips of one, two, three … events apart, into a CSV beside --results_csv"
    add("--overlap_analysis", action="store_true", help=overlap)
    add("--best_only", action="store_true", help="of each run, only the checkpoint with the best validation figure")
    add("--untrained", action="store_true", help="also score each run's network as it was before training")
    add("--overwrite", action="store_true", help="score again what --results_csv already holds")
    add("--per_class", action="store_true", help="also write every class's scores, into a CSV beside --results_csv")
    resamples = "resamples of the clips for 95 %% intervals of scores, such as 1000, or 0 for none"
    add("--bootstrap", type=count, default=0, metavar="R", help=resamples)
    add("--seed", type=seed, default=0, help="of the resamples")
    add("--calibration", action="store_true", help="also the expected calibration error, and a picture of reliability")
    add_loading_flags(parser)
    return parser


def add_storage_flags(parser: Parser, required: bool = True) -> None:
    """Which clips a script scores."""
    where = parser.add_mutually_exclusive_group(required=required)
    where.add_argument("--lmdb_path", help="clips to score on")
    where.add_argument("--manifest", metavar="FILE.csv", help="clips to score on, a CSV with the columns files,labels")
    resample = "take a manifest's files of any rate and number of channels, as audio_config.resample: True does"
    parser.add_argument("--resample", action="store_true", help=resample)


def add_loading_flags(parser: Parser) -> None:
    """How a script that scores clips loads them, and where its networks run."""
    add = parser.add_argument
    add("--batch_size", type=positive(int), default=32, help="clips in a batch")
    add("--num_workers", type=count, default=4, help="loader processes, or 0 to load in the main process")
    add("--gpus", type=device_list, default="0", help="GPU index, the first of several, or the CPU where there is none")
    add_clip_flags(parser)


def evaluation_options(arguments: argparse.Namespace, levels: int, **more: Any) -> "EvaluationOptions":
    """The options of an evaluation script's parsed flags.

    Args:
        levels: folders above `ckpts/` that name a row of results.csv.
        more: options that are no flags.

    Raises:
        UserError: there is nothing to score on, and nothing to export.
    """
    if not (arguments.lmdb_path or arguments.manifest or arguments.export_weights):
        raise UserError("--lmdb_path or --manifest is missing, the clips to score on (--export_weights needs none)")
    from src.evaluation import EvaluationOptions

    export_dir = arguments.export_dir if arguments.export_weights else None
    more |= {"levels": levels, "export_dir": export_dir, "gpus": tuple(arguments.gpus)}
    return options_of(EvaluationOptions, arguments, **more)
