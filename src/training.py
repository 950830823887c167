"""Training: a run's plan is made, then carried out."""

import logging
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from src.data.datamodule import ClipDataModule
from src.data.lmdb.store import LMDBReader
from src.errors import UserError
from src.learning.recognizer import Recognizer
from src.run_plan import RunPlan, TrainingOptions, plan_run
from src.runs.checkpointing import tidy
from src.runs.distributed import sharing_errors
from src.runs.interrupts import Interrupts
from src.runs.lock import sole_process
from src.runs.record import RunRecord
from src.runs.trainer import build_trainer, run_callbacks, seconds_of
from src.utils.processes import is_first

log = logging.getLogger(__name__)


@sharing_errors
def train(options: TrainingOptions) -> None:
    """Train as the options say, into `options.expdir`.

    An unfinished run in that folder is resumed from its last checkpoint. A finished one is left alone.

    Raises:
        UserError: the configuration, the data or the folder do not fit. Nothing was written then.
    """
    with sole_process(Path(options.expdir)) if is_first() else nullcontext():
        plan = plan_run(options)
        if is_first() and plan.earlier:
            tidy(plan.folder, options.keep, plan.resume.path if plan.resume and not options.resume_from else None)
        if plan.is_finished:
            close(plan)
        else:
            carry_out(plan)


def close(plan: RunPlan) -> None:
    """Say that a run is finished, in its record too if it was killed before it could."""
    finished = (plan.earlier or {})["finished"]
    if finished is None:
        assert plan.resume is not None
        finished = RunRecord(plan.folder, plan.earlier).finish(
            plan.resume.epochs, plan.resume.early, plan.resume.seconds
        )
    log.info("%s: finished (%s), skipped", plan.folder.path, finished["reason"])


@sharing_errors
def train_on_each(options: TrainingOptions, lmdbs: Sequence[str]) -> None:
    """One run an LMDB, in natural order, into `<expdir>/<LMDB name>/`.

    Raises:
        UserError: an LMDB is missing, two share a name, or all a teacher, before anything is trained, or from a run.
    """
    lmdbs = sorted(lmdbs, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)])
    names = [Path(lmdb).stem for lmdb in lmdbs]
    events = replace(options, train_lmdb=lmdbs[0]).config().model.type == "events"
    for lmdb, name in zip(lmdbs, names):
        reader = LMDBReader(lmdb)
        if events:
            reader.require_events()
        if names.count(name) > 1:
            raise UserError(f"--lmdbs_list: two LMDBs are called {name}, and their runs would share one folder")
    if len(lmdbs) > 1 and (teacher := replace(options, train_lmdb=lmdbs[0]).config().opt.teacher):
        raise UserError(f"--lmdbs_list: names {len(lmdbs)} LMDBs, and opt.teacher {teacher} is of the clips of one")
    for number, (lmdb, name) in enumerate(zip(lmdbs, names), 1):
        log.info("run %d of %d: %s", number, len(lmdbs), lmdb)
        train(replace(options, expdir=str(Path(options.expdir) / name), train_lmdb=lmdb))


def carry_out(plan: RunPlan) -> None:
    """Train as the plan says, in a folder that no other run uses."""
    options, config, task, record = plan.options, plan.config, plan.task(), plan.record()
    network = plan.network()
    if options.devices.compile:
        network.compile()  # in place: the state dict keeps its keys
    data = plan.data()
    record.describe_data(data.train_set, data.val_set)
    interrupts = Interrupts()
    keep, every = options.keep, options.checkpoint_every_n_steps
    trainer = build_trainer(
        plan.folder,
        options.devices,
        [record, *run_callbacks(plan.folder, data, config.opt, task.figure_names, keep, every, interrupts)],
        max_epochs=options.epochs,
        accumulate_grad_batches=plan.dealing.share,
        gradient_clip_val=config.opt.clip_norm,
        deterministic=None if options.seed is None else "warn",
    )
    if trainer.local_rank == 0:
        data.read_ahead()
    recognizer = Recognizer(
        network, task, plan.label_map, config.opt, config.protocol, plan.seed, plan.use_mixup, config.augment
    )
    announce(plan, recognizer, data)
    record.write()
    resume_from = plan.resume.path if plan.resume else None
    with interrupts.listening(), record.warnings.listening():
        try:
            trainer.fit(recognizer, datamodule=data, ckpt_path=resume_from, weights_only=True)
        except (KeyboardInterrupt, SystemExit):
            record.write()
            if trainer.interrupted:  # Lightning turns an interrupt into an exit
                raise interrupts.exception() from None
            raise
        except RuntimeError as error:  # Lightning's tidying up fails where a loader did not begin
            if isinstance(error.__context__, UserError):
                raise error.__context__ from None
            raise
        early = any(callback.stopped_epoch for callback in trainer.early_stopping_callbacks)
        record.finish(trainer.current_epoch, early, seconds_of(trainer))


def announce(plan: RunPlan, recognizer: Recognizer, data: ClipDataModule) -> None:
    """A few lines on what is about to run."""
    options, config, point = plan.options, plan.config, plan.resume
    model, mixup = config.model, "on" if plan.use_mixup else "off"
    millions = sum(parameter.numel() for parameter in recognizer.net.parameters()) / 1e6
    log.info(
        f"{options.expdir}: {model.arch} {model.model_depth}, {millions:.1f} M parameters, {plan.forward_gmac:.3g} "
        f"GMAC a clip, {model.num_classes} classes, protocol {config.protocol}, mixup {mixup}, seed {plan.seed}"
    )
    held_out = options.validation == "held_out"
    which = " held out of training" * held_out
    if options.fold_index is not None:
        which = f" of fold {'after ' * held_out}{options.fold_index}"
    dealing, processes = plan.dealing, options.devices.num_processes
    steps = f", {dealing.share} of them a step" if dealing.share > 1 else ""
    ranks = f", in each of {processes} processes" if processes > 1 else ""
    log.info(
        f"{len(data.train_set)} training clips ({config.data.source('train')}), {len(data.val_set)} validation clips "
        f"({config.data.source('val')}){which}, batches of {config.opt.batch_size}{steps}{ranks}"
    )
    if model.pretrained and not point:
        log.info("starting from the weights in %s, with a fresh last layer", model.pretrained)
    if point:
        within = f" and {point.batches} batches" if point.batches else ""
        log.info("resuming from %s, after %d epochs%s", point.path, point.epochs, within)
    if not dealing.is_as_begun:
        log.info("steps of %d batches, as where the run began, in %d processes", dealing.batches_a_step, dealing.ranks)
        if options.devices.sync_batchnorm:
            log.warning("--sync_batchnorm: batch norm's statistics are over %d processes now", processes)
