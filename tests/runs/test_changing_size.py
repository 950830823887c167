"""Runs that are resumed on other numbers of processes: the same steps, up to rounding."""

import json

import numpy as np
import pytest
import timm
import torch
from conftest import error_line, run_script, train_command, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from test_several_devices import figures, free_port, run_together, weights

from src.data.sampling import Dealing, DealtSampler, EpochSampler
from src.errors import UserError
from src.learning.batch_norm import RunningStatistics, over_all_processes
from src.runs import devices as devices_module
from src.runs.devices import Devices, choose_devices
from src.runs.folder import RunFolder, require_same_run
from src.runs.resuming import read_resume_point


@st.composite
def dealings(draw):
    """Any that fits, and batches of each rank in an epoch."""
    ranks, accumulate = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    fitting = [number for number in range(1, ranks * accumulate + 1) if ranks * accumulate % number == 0]
    return Dealing(ranks, accumulate, draw(st.sampled_from(fitting))), draw(st.integers(1, 20))


@settings(max_examples=300, deadline=None)
@given(dealings())
def test_every_step_has_the_batches_that_it_began_with(drawn):
    dealing, of_rank = drawn
    count = dealing.num_batches(of_rank)
    steps = -(-of_rank // dealing.accumulate)
    assert -(-count // dealing.share) == steps
    for step in range(steps):
        places = range(step * dealing.share, min((step + 1) * dealing.share, count))
        own = [[dealing.origin(process, place, of_rank) for place in places] for process in range(dealing.processes)]
        batches = range(step * dealing.accumulate, min((step + 1) * dealing.accumulate, of_rank))
        begun = [(rank, batch) for rank in range(dealing.ranks) for batch in batches]
        assert [origin for origins in own for origin in origins if origin] == begun
        if dealing.is_as_begun:
            assert own == [[(rank, batch) for batch in batches] for rank in range(dealing.ranks)]
        if len(batches) == dealing.accumulate:
            assert all(all(origins) for origins in own)
        if dealing.processes <= dealing.ranks:
            assert own[0][: len(batches)] == [(0, batch) for batch in batches]


@settings(max_examples=100, deadline=None)
@given(dealings(), st.integers(1, 3), st.integers(0, 40), st.booleans())
def test_batches_have_the_records_that_they_began_with(drawn, size, more, balanced):
    dealing, of_rank = drawn
    records = dealing.ranks * size * of_rank + more
    chances = np.arange(1, records + 1) / sum(range(1, records + 1)) if balanced else None
    begun = [EpochSampler(records, 5, True, rank, dealing.ranks, chances).share(2) for rank in range(dealing.ranks)]
    for process in range(dealing.processes):
        sampler = DealtSampler(records, 5, size, dealing, process, chances)
        share = sampler.share(2).reshape(-1, size)
        assert share.size == len(sampler)
        for batch, own in enumerate(share):
            if origin := sampler.origin(batch):
                rank, number = origin
                assert own.tolist() == begun[rank][number * size : (number + 1) * size].tolist()


@pytest.mark.parametrize("sizes", [[3], [2, 1], [1, 1, 1], [1, 2, 0]])
def test_running_statistics_of_a_step_that_processes_share(sizes):
    """As of one process that has all batches, whatever each layer's momentum."""

    def network():
        torch.manual_seed(0)
        made = torch.nn.Sequential(torch.nn.BatchNorm1d(3, momentum=0.3), torch.nn.BatchNorm1d(3, momentum=0.01))
        made.double()(torch.randn(8, 3).double())  # not at 0 and 1
        return made

    batches = list(torch.randn(3, 8, 3, dtype=torch.double).unbind())
    alone = network()
    for batch in batches:
        alone(batch)
    networks, kept = [network() for _ in sizes], iter(batches)
    statistics = [RunningStatistics(each) for each in networks]
    for size, own, each in zip(sizes, networks, statistics):
        each.begin_step()
        for _ in range(size):
            each.track(True)
            own(next(kept))
        each.track(False)
        own(batches[0])
    values = torch.stack([each._values() for each in statistics])
    for own, each in zip(networks, statistics):
        each.join(lambda own: values if own.numel() > 1 else torch.tensor(sizes))
        for name, value in alone.state_dict().items():
            assert torch.allclose(own.state_dict()[name], value, rtol=1e-12), name


# ---- whole runs ----


@pytest.fixture(scope="module")
def clips(corpus, tmp_path_factory):
    """37 clips: of two, 5 batches for each of four processes, and 18 for one."""
    folder = tmp_path_factory.mktemp("clips")
    made = write_folder(folder / "flac", 37, 7)
    packed = folder / "many.lmdb"
    run_script("pack_mixtures_into_lmdb.py", "--mixture_dir", made, "--lmdb_path", packed, check=0)
    return packed


def command(corpus, clips, folder, *more, epochs=2):
    """A run of a small network with batch norm and dropout, and of mixup."""
    values = {
        "data.train_lmdb": clips,
        "model.arch": "timm",
        "model.model_depth": "test_efficientnet",
        "model.dropout": 0.3,
        "opt.batch_size": 2,
        "protocol": "corrected",
    }
    words = (word for key, value in values.items() for word in ("--set", f"{key}={value}"))
    return train_command(corpus, folder, "--use_mixup", "--accelerator", "cpu", *words, *more, epochs=epochs)


def train(corpus, clips, folder, processes, last_step=0, *more):
    """One start of a run in so many processes, which ends after a step, if not 0. Gives what the first one said."""
    notes = folder.with_name(f"{folder.name}_notes")
    notes.mkdir(exist_ok=True)
    words = command(corpus, clips, folder, "--devices", processes, *more)
    words = "tests/runs/resized_script.py", notes, last_step, *words[1:]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "NODE_RANK": "0", "WORLD_SIZE": str(processes)}
    ranks = [shared | {"LOCAL_RANK": str(rank)} for rank in range(processes)] if processes > 1 else [{}]
    results = run_together(words, ranks)
    assert results[0].returncode == (143 if last_step else 0), "".join(result.stderr[-3000:] for result in results)
    return results[0].stderr


def steps(folder):
    """What tests/runs/resized_script.py noted: batches by origin, and the logged losses."""
    batches, logged = [], {}
    for path in folder.with_name(f"{folder.name}_notes").iterdir():
        more, of_steps = torch.load(path, weights_only=True)
        batches += more
        for step, loss in of_steps.items():
            assert logged.setdefault(step, loss) == loss  # on all processes
    return sorted(batches), [loss for _, loss in sorted(logged.items())]


def assert_same_steps(folder, begun):
    (ours, logged), (theirs, expected) = steps(folder), steps(begun)
    assert len(logged) == 10
    assert [batch[:-1] for batch in ours] == [batch[:-1] for batch in theirs]
    assert [batch[-1] for batch in ours] == pytest.approx([batch[-1] for batch in theirs], rel=1e-9)
    assert logged == pytest.approx(expected, rel=1e-9)
    for row, other in zip(figures(folder), figures(begun), strict=True):
        assert {name: float(value) for name, value in row.items()} == pytest.approx(
            {name: float(value) for name, value in other.items()}, rel=1e-6
        )
    for epoch in (0, 1):
        mine, other = weights(folder, epoch), weights(begun, epoch)
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            assert torch.allclose(value, other[name], rtol=1e-7, atol=1e-10), name


SETTINGS = {
    "four": ((4,), ()),
    "one": ((1, "--accumulate_grad_batches", 4), ("opt.ema_decay=0.9", "opt.scheduler=one_cycle", "opt.clip_norm=1")),
}


@pytest.fixture(scope="module", params=SETTINGS)
def begun(request, corpus, clips, tmp_path_factory):
    """An undisturbed run, and the words of it."""
    (processes, *first), more = SETTINGS[request.param]
    more = tuple(word for value in more for word in ("--set", value))
    folder = tmp_path_factory.mktemp("begun") / "run"
    train(corpus, clips, folder, processes, 0, *first, *more)
    return folder, processes, first, more


def test_a_run_in_changing_numbers_of_processes_has_the_same_steps(corpus, clips, begun, tmp_path):
    """Begun by four: an epoch is of five steps. By one, also of five, and the last one has two batches for four."""
    undisturbed, undisturbed_processes, first, more = begun
    folder = tmp_path / "run"
    train(corpus, clips, folder, undisturbed_processes, 2, *first, *more)
    for processes, last_step in ((2, 4), (1, 7), (4, 0)):
        said = train(corpus, clips, folder, processes, last_step, *more)
        assert "resuming from" in said and ("as where the run began" in said) == (processes != undisturbed_processes)
    assert_same_steps(folder, undisturbed)
    record = json.loads((folder / "run.json").read_text())
    starts = [record, *record["resumed"]]
    assert len({json.dumps(start["begun"]) for start in starts}) == 1
    assert [start["accumulate"] for start in starts] == [starts[0]["accumulate"], 2, 4, 1]


def test_the_loss_of_a_step_is_the_mean_of_its_batches(begun):
    folder, processes, *_ = begun
    batches, logged = steps(folder)
    each = 4 // processes
    losses = [
        [loss for in_epoch, _, number, _, loss in batches if in_epoch == epoch and number // each == step]
        for epoch in (0, 1)
        for step in range(5)
    ]
    assert logged == pytest.approx([np.mean(of_step) for of_step in losses], rel=1e-12)


@pytest.mark.parametrize(
    "more, said",
    [
        (("--devices", 3), "each step of its run is of 4 batches, and 3 processes cannot share them equally. Resume "),
        (("--devices", 8), "with another number (--devices, --gpus, --num_nodes), of 1, 2, 4"),
        (
            ("--devices", 2, "--accumulate_grad_batches", 4),
            "is of 4 batches, 2 for each of 2 processes. Give 2, or leave the flag out",
        ),
    ],
)
def test_what_would_change_the_steps_is_refused(corpus, clips, begun, tmp_path, more, said):
    folder, _, _, of_run = begun
    more = "--resume_from", min((folder / "ckpts").iterdir()), *of_run, *more
    assert said in error_line(run_script(*command(corpus, clips, tmp_path / "run", *more)))
    assert not (tmp_path / "run").exists()


def test_checkpoints_of_earlier_versions_say_who_wrote_them(begun, tmp_path):
    """They kept no steps, so the last start's are kept."""
    folder, processes, *_ = begun
    path = min((folder / "ckpts").iterdir())
    content = torch.load(path, weights_only=True)
    record = content["hyper_parameters"]
    del record["begun"]
    record["resumed"] = [{"accumulate": 3}]

    def begun_as(**changed):
        torch.save(content | changed, tmp_path / "a.ckpt")
        return read_resume_point(tmp_path / "a.ckpt").begun

    assert begun_as() == Dealing(processes, 3, processes) and begun_as(ranks=None) is None
    assert begun_as(hyper_parameters={}) == Dealing(processes, 1, processes)
    assert read_resume_point(path).dealing(2, 2) == Dealing(processes, 4 // processes, 2)
    record["resumed"] = []
    for record["begun"] in ({"processes": 0, "accumulate": 1}, {"processes": 2}, {"processes": 10**9, "accumulate": 1}):
        with pytest.raises(UserError, match="does not say how far its run had come. The file is damaged"):
            begun_as()
    for ranks in (0, 3, "a"):
        record["begun"] = {"processes": 4, "accumulate": 1}
        with pytest.raises(UserError, match="The file is damaged"):
            begun_as(ranks=ranks)


# ---- batch norm over all processes ----


def test_batch_norm_over_all_processes_is_asked_for_on_gpus_alone(monkeypatch, corpus, clips, tmp_path):
    monkeypatch.setattr(devices_module.torch.cuda, "device_count", lambda: 2)
    assert choose_devices(devices=2, sync_batchnorm=True) == Devices((0, 1), 2, sync_batchnorm=True)
    line = error_line(run_script(*command(corpus, clips, tmp_path / "run", "--sync_batchnorm")))
    assert "--sync_batchnorm: PyTorch's works on GPUs alone, and this run is on the CPU" in line
    assert not (tmp_path / "run").exists()


def test_a_run_without_batch_norm_over_all_processes_is_not_resumed_with_it(begun, tmp_path):
    """Nor one of an earlier version, whose record does not say."""
    record = json.loads((begun[0] / "run.json").read_text())
    assert record.pop("sync_batchnorm") is False
    (tmp_path / "run.json").write_text(json.dumps(record))
    for folder in map(RunFolder, (begun[0], tmp_path)):
        with pytest.raises(UserError, match="with sync_batchnorm False instead of True"):
            require_same_run(folder, folder.record(), {"sync_batchnorm": True})


def test_layers_over_all_processes_keep_keys_and_activations():
    network = timm.create_model("test_efficientnet", in_chans=1, num_classes=3).eval()
    inputs = torch.linspace(-1, 1, 2 * 32 * 32).view(2, 1, 32, 32)
    expected, keys = network(inputs), list(network.state_dict())
    converted = over_all_processes(network)
    norms = [layer for layer in converted.modules() if isinstance(layer, torch.nn.SyncBatchNorm)]
    assert len(norms) > 5 and list(converted.state_dict()) == keys and torch.equal(converted(inputs), expected)
