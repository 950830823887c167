"""The one LightningDataModule: a configuration's training and validation sets and their loaders."""

from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from src.config.sections import Config
from src.data.batching import Batch
from src.data.clip_dataset import ClipDataset
from src.data.device_features import DeviceFeatures, Features
from src.data.labels import LabelMap
from src.data.loading import DESCRIPTORS, batches_on, open_dataset, open_training_set
from src.data.sampling import Dealing, DealtSampler, EpochSampler
from src.data.transforms import evaluation_chain, training_chain
from src.errors import UserError
from src.utils.limits import usable_workers


class ClipDataModule(pl.LightningDataModule):
    """Training and validation clips of one run.

    Args:
        config: the experiment.
        label_map: its classes.
        random_clip_size: frames of a training clip.
        val_clip_size: frames of a validation clip.
        num_workers: loader processes of each set, or 0 to load in the main process.
        prefetch_factor: batches that each worker prepares ahead.
        seed: of the order and of the training chain's draws.
        crop_validation: validate on the centre of a longer clip, or else on all of it.
        features: where spectrograms are made: on the "device" of the network, in the loader's "workers", or "auto",
            on a GPU where the network is on one.
        frame_stride: columns of a frame of events, where frames are to have targets.
        of_lmdbs: of `open_dataset`. With a fold or `held_out`, clips that are validated on are not trained on.

    Raises:
        UserError: from the data sets, for a batch that the training set cannot fill, and for too many workers.
    """

    def __init__(
        self,
        config: Config,
        label_map: LabelMap,
        random_clip_size: int,
        val_clip_size: int,
        num_workers: int = 4,
        prefetch_factor: int = 4,
        seed: int = 0,
        crop_validation: bool = True,
        features: Features = "auto",
        frame_stride: int | None = None,
        **of_lmdbs: Any,
    ):
        super().__init__()
        self.batch_size = config.opt.batch_size
        self.num_workers = usable_workers(num_workers, DESCRIPTORS, pools=2)
        self.prefetch_factor = prefetch_factor
        self.seed = seed
        self.features = features

        self.train_source = config.data.source("train")
        self.val_source = config.data.source("val")
        of_lmdbs["num_workers"] = num_workers
        train_chain = training_chain(random_clip_size, config.augment, config.audio_config.std or 1.0)
        val_chain = evaluation_chain(val_clip_size, crop_validation)
        self.train_set = open_training_set(config, label_map, train_chain, seed, complement=True, **of_lmdbs)
        self.train_set.wave_mix = config.augment.wave_mix
        bins, shift = self.train_set.features.num_bins, config.augment.freq_shift
        if shift >= bins:
            raise UserError(
                f"{config.path}: augment.freq_shift is {shift}. It should be below {bins}, the bins or bands"
            )
        self._weights = self.train_set.balancing_weights() if config.opt.balanced else None
        self.val_set = open_dataset(config, self.val_source, label_map, val_chain, seed, **of_lmdbs)
        if frame_stride is not None:
            self.train_set.use_frames(frame_stride)
            self.val_set.use_frames(frame_stride)
        self.device_features = DeviceFeatures(self.train_set.features)
        self.deal(Dealing())
        self._within_epoch: tuple[int, int] | None = None  # epoch, records of each process done

    def deal(self, dealing: Dealing) -> None:
        """Share the clips so in the fit that follows.

        Raises:
            UserError: the whole training set would be dropped as one incomplete batch, or a process would be idle.
        """
        clips = -(-len(self.train_set) // dealing.ranks)
        if clips < self.batch_size:
            each = f"{clips} for each of {dealing.ranks} devices" if dealing.ranks > 1 else f"{clips}"
            raise UserError(
                f"{self.train_source}: {each} training clips do not fill one batch of opt.batch_size "
                f"{self.batch_size}. Choose a smaller one with --set opt.batch_size={clips}"
            )
        if len(self.val_set) < dealing.processes:
            raise UserError(
                f"{self.val_source}: holds {len(self.val_set)} validation clips, fewer than the "
                f"{dealing.processes} devices that share them. Train on {len(self.val_set)} at most"
            )
        self.dealing = dealing

    def read_ahead(self) -> None:
        """Begin in the background what takes a pass through the files. One process of a machine calls it."""
        self.train_set.read_ahead()
        self.val_set.read_ahead()

    def num_batches(self) -> int:
        """Training batches of a process in an epoch."""
        return len(self._sampler()) // self.batch_size

    def origin(self, batch: int, process: int) -> tuple[int, int] | None:
        """Rank and number of a process's training batch when the run began, as `Dealing.origin` gives them."""
        return self._sampler(process).origin(batch)

    def resume(self, epoch: int, batches: int) -> None:
        """Start training with that epoch, of which each process has done so many batches."""
        self._within_epoch = epoch, batches * self.batch_size

    def records_of_batch(self, epoch: int, batch: int, process: int) -> str:
        """How messages call the clips of a training batch."""
        share = self._sampler(process).share(epoch)
        return self.train_set.where_all(share[batch * self.batch_size : (batch + 1) * self.batch_size].tolist())

    def _sampler(self, process: int = 0) -> DealtSampler:
        return DealtSampler(len(self.train_set), self.seed, self.batch_size, self.dealing, process, self._weights)

    def train_dataloader(self) -> DataLoader:
        trainer = self._attached()
        shared = trainer.world_size, trainer.accumulate_grad_batches
        assert shared == (self.dealing.processes, self.dealing.share), "deal the clips as the trainer takes them"
        sampler = self._sampler(trainer.global_rank)
        # Loader workers fetch the first batches before Lightning sets the epoch.
        progress = trainer.fit_loop.epoch_progress.current
        sampler.set_epoch(progress.processed)  # type: ignore[attr-defined,union-attr]  # Lightning declares a narrower type
        if self._within_epoch:
            sampler.resume(*self._within_epoch)
        return self._loader(self.train_set, sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        trainer = self._attached()
        sampler = EpochSampler(len(self.val_set), self.seed, False, trainer.global_rank, trainer.world_size)
        return self._loader(self.val_set, sampler)

    def _attached(self) -> pl.Trainer:
        assert self.trainer is not None, "loaders are made in a fit"
        return self.trainer

    def _loader(self, dataset: ClipDataset, sampler: EpochSampler, drop_last: bool = False) -> DataLoader:
        device = self._attached().strategy.root_device
        what = device, dataset, sampler, self.batch_size, self.num_workers, self.features
        return batches_on(*what, drop_last=drop_last, prefetch_factor=self.prefetch_factor)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch._replace(inputs=self.device_features(batch.inputs))
