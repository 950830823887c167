"""Batches in memory that loader workers use again: never while somebody still looks at it."""

import gc

import pytest
import torch
from conftest import CLASSES

from src.config.sections import AudioConfig
from src.data.inmemory_lmdb_dataset import InMemoryLMDBDataset
from src.data.labels import LabelMap
from src.data.loading import loader
from src.data.sampling import EpochSampler
from src.data.shared_buffers import BUFFERS
from src.data.transforms import training_chain

EPOCHS = range(BUFFERS + 4)


@pytest.fixture
def dataset(corpus):
    return InMemoryLMDBDataset(
        str(corpus / "train.lmdb"),
        AudioConfig(min_duration=0.5),
        LabelMap(tuple(CLASSES)),
        "multilabel",
        training_chain(64),
    )


def keys_of(dataset):
    return [(epoch, index) for epoch in EPOCHS for index in range(len(dataset))]


def expected(dataset):
    keys = keys_of(dataset)
    return [dataset.__getitems__(keys[start : start + 4])[0] for start in range(0, len(keys), 4)]


def same(one, other):
    if isinstance(one, tuple):
        one, other = one.samples, other.samples
    return one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("on_device", [False, True])
def test_batches_that_are_kept_do_not_change(dataset, on_device, context):
    dataset.on_device = on_device
    batches = loader(dataset, keys_of(dataset), 4, 2)
    batches.multiprocessing_context = context
    kept = [batch.inputs for batch in batches]
    assert len(kept) > 2 * BUFFERS and all(map(same, kept, expected(dataset)))


@pytest.mark.parametrize("on_device", [False, True])
def test_memory_of_batches_that_are_done_with_is_used_again(dataset, on_device):
    dataset.on_device = on_device
    places = set()
    for (inputs, *_), right in zip(loader(dataset, keys_of(dataset), 4, 1, prefetch_factor=2), expected(dataset)):
        assert same(inputs, right)
        places.add((inputs.samples if on_device else inputs).data_ptr())
    assert len(places) <= 5 < len(expected(dataset))


def test_whatever_is_made_of_a_batch_keeps_its_memory(dataset):
    """A view, an array, and what PyTorch remembers for its gradients."""
    kept, right = [], expected(dataset)
    weights = torch.ones(1, 1, 221, 64, requires_grad=True)
    for number, (inputs, *_) in enumerate(loader(dataset, keys_of(dataset)[:96], 4, 1, prefetch_factor=2)):
        kept.append((inputs[1:2], inputs[2].numpy(), (weights * inputs[3:4]).sum()) if number % 4 == 0 else None)
        del inputs
        gc.collect()
    for number in range(0, len(kept), 4):
        view, array, product = kept[number]
        assert torch.equal(view, right[number][1:2]) and (array == right[number][2].numpy()).all()
        assert torch.equal(torch.autograd.grad(product, weights)[0], right[number][3:4])


def test_batches_of_other_sizes(dataset):
    """Of growing, then of shrinking numbers of clips."""

    class Sizes(list):
        pass

    sizes = [1, 2, 5, 5, 3, 12, 1, 7, 2] * 4
    keys, sampler = iter(keys_of(dataset)), Sizes()
    for size in sizes:
        sampler.append([next(keys) for _ in range(size)])
    batches = loader(dataset, None, 1, 1)
    again = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=1,
        collate_fn=batches.collate_fn,
        worker_init_fn=batches.worker_init_fn,
    )
    for (inputs, *_), some in zip(again, sampler):
        assert torch.equal(inputs, dataset.__getitems__(some)[0])


def test_a_loader_that_is_left_in_the_middle_starts_again(dataset):
    sampler = EpochSampler(len(dataset), 0, training=True)
    batches = loader(dataset, sampler, 4, 2)
    first = [batch.inputs.clone() for batch in batches]
    for _ in range(BUFFERS + 2):
        next(iter(batches))
    assert all(map(same, [batch.inputs for batch in batches], first))
