"""The parsers on anything: they give what they promise, or refuse it in one way, and never fall over."""

import io
import json
import string
from random import Random

import lmdb
import msgpack
import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import CLIP, FIXTURES, SAMPLE_RATE, cfg_tree, tone_clip
from faults import mutations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.config.loading import load_config, parse_config
from src.config.sections import Config
from src.data.audio.files import decode
from src.data.events import Event
from src.data.labels import LabelMap, nfc
from src.data.lmdb.store import EVENTS, NO_RECORD, LMDBReader, Record, _audio_span, packed_events, unpacked_events
from src.data.lmdb.writer import LMDBWriter
from src.errors import UserError
from src.models.checkpoint import read_checkpoint
from src.models.decisions import EventDecisions, read_decisions
from src.preparation.annotations import read_events
from src.preparation.packing import listed_events

EXAMPLES = 200
fuzzed = settings(
    derandomize=True,
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=8),
    st.dates(),
    st.sampled_from(mutations.ODD_VALUES),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.text(max_size=8), st.integers()), inner, max_size=4)
    ),
    max_leaves=12,
)
RNG = st.integers(0, 2**32).map(Random)
VALID = cfg_tree(FIXTURES)
KEYS = sorted({str(part) for path in mutations.paths_of(VALID) for part in path})


def refused(call, *arguments):
    """What a call gives, or the message of its UserError, in one line."""
    try:
        return call(*arguments), None
    except UserError as error:
        message = str(error)
        assert message and len(message) < 10_000
        return None, message


@fuzzed
@given(tree=TREES)
def test_any_tree_is_a_cfg_or_refused(tree):
    config, message = refused(parse_config, tree, "x.cfg")
    assert isinstance(config, Config) or message.startswith("x.cfg: ")


@fuzzed
@given(path=st.sampled_from(mutations.paths_of(VALID)), value=TREES)
def test_a_cfg_with_any_value_in_it_is_a_cfg_or_refused_by_that_name(path, value):
    tree = mutations.replaced(VALID, path, lambda container, key: container.__setitem__(key, value))
    config, message = refused(parse_config, tree, "x.cfg")
    if config is None:
        assert message.startswith("x.cfg: ") and path[-1] in message or isinstance(value, dict)
    else:
        assert json.loads(json.dumps(config.as_dict())) == config.as_dict()  # as run.json stores it


@fuzzed
@given(
    tree=st.dictionaries(
        st.sampled_from(KEYS), TREES | st.dictionaries(st.sampled_from(KEYS), TREES, max_size=4), max_size=5
    )
)
def test_known_keys_in_wrong_places(tree):
    config, message = refused(parse_config, tree, "x.cfg")
    assert isinstance(config, Config) or message.startswith("x.cfg: ")


@fuzzed
@given(data=st.one_of(st.binary(max_size=200), st.text(string.printable, max_size=200).map(str.encode)))
def test_any_file_is_a_cfg_or_refused(tmp_path, data):
    (tmp_path / "x.cfg").write_bytes(data)
    config, message = refused(load_config, tmp_path / "x.cfg")
    assert isinstance(config, Config) or "x.cfg: " in message


@fuzzed
@given(rng=RNG, how=st.sampled_from([*mutations.BYTES, mutations.odd_yaml]))
def test_a_cfg_file_spoilt_is_a_cfg_or_refused(tmp_path, rng, how):
    text = yaml.safe_dump(VALID)
    spoilt = how(text, rng).encode() if how is mutations.odd_yaml else how(text.encode(), rng)
    (tmp_path / "x.cfg").write_bytes(spoilt)
    config, message = refused(load_config, tmp_path / "x.cfg")
    assert isinstance(config, Config) or "x.cfg: " in message


@fuzzed
@given(
    override=st.one_of(
        st.text(max_size=40),
        st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS), st.text()).map(
            lambda parts: f"{parts[0]}.{parts[1]}={parts[2]}"
        ),
    )
)
def test_any_override_is_taken_or_refused(tmp_path, override):
    (tmp_path / "x.cfg").write_text(yaml.safe_dump(VALID))
    config, message = refused(load_config, tmp_path / "x.cfg", [override])
    assert isinstance(config, Config) or message


@fuzzed
@given(mapping=TREES | st.dictionaries(st.text(max_size=5), st.integers(-1, 4), max_size=5))
def test_any_mapping_is_a_label_map_or_refused(mapping):
    label_map, message = refused(LabelMap.from_mapping, mapping, "x.json")
    if label_map is None:
        assert message.startswith("x.json: ")
    else:
        assert label_map.mapping == {nfc(name): index for name, index in mapping.items()}
        assert list(label_map.mapping.values()) == list(range(len(mapping)))


@fuzzed
@given(
    data=st.one_of(
        st.binary(max_size=100),
        RNG.map(lambda rng: mutations.odd_json('{"a": 0, "b": 1}', rng).encode()),
        TREES.map(lambda tree: mutations.as_json(str(tree)).encode(errors="surrogatepass")),
    )
)
def test_any_file_is_a_label_map_or_refused(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    label_map, message = refused(LabelMap.load, tmp_path / "x.json")
    assert isinstance(label_map, LabelMap) or "x.json: " in message


@fuzzed
@given(
    label=st.text(st.sampled_from("ab,;\0 "), max_size=10) | st.integers() | st.booleans() | st.text(max_size=10),
    delimiter=st.sampled_from([",", ";", "ab", " "]),
)
def test_any_label_is_indices_or_refused(label, delimiter):
    label_map = LabelMap(("a", "b", "a b"), "x.json")
    indices, message = refused(label_map.indices, label, delimiter, "record 3")
    if indices is None:
        assert message.startswith("record 3")
    else:
        assert set(indices) <= {0, 1, 2} and bool(indices) == (label != "")


PACKABLE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=10),
        st.binary(max_size=300),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)


@fuzzed
@given(
    value=st.one_of(
        st.binary(max_size=300),
        PACKABLE.map(msgpack.packb),
        st.tuples(st.binary(max_size=300), PACKABLE, PACKABLE).map(msgpack.packb),
    )
)
def test_any_value_is_a_record_or_no_record(value):
    """Read whole, and past its audio, as an LMDB's labels are: what both can read is the same."""
    try:
        record = Record.unpack(value)
    except ValueError:
        return
    assert isinstance(record.flac, bytes) and isinstance(record.label, (str, int))
    rest = msgpack.Unpacker()
    rest.feed(value[_audio_span(value)[1] :])
    assert list(rest) == [record.label] + ([] if record.fold is None else [record.fold])


@fuzzed
@given(
    flac=st.binary(max_size=70_000),
    label=st.text(max_size=100) | st.integers(-(2**63), 2**63),
    fold=st.none() | st.integers(0, 9),
)
def test_a_record_is_read_as_it_was_packed(flac, label, fold):
    record = Record(flac, label, fold)
    assert Record.unpack(record.pack()) == record


TIMES = st.floats(allow_nan=False, allow_infinity=False)
SOUND_EVENTS = st.lists(st.builds(Event, TIMES, TIMES, st.text(min_size=1, max_size=5)), max_size=3)


@fuzzed
@given(
    value=st.one_of(
        st.binary(max_size=100),
        PACKABLE.map(msgpack.packb),
        st.lists(st.lists(st.tuples(TIMES | PACKABLE, TIMES, st.text() | PACKABLE), max_size=2), max_size=3).map(
            msgpack.packb
        ),
    )
)
def test_any_value_is_the_events_of_records_or_refused(value):
    for count in range(4):
        try:
            found = unpacked_events(value, count)
        except NO_RECORD:
            continue
        assert len(found) == count == len(msgpack.unpackb(value))
        assert all(np.isfinite([one.onset, one.offset]).all() and one.label for events in found for one in events)


@fuzzed
@given(lists=st.lists(SOUND_EVENTS, max_size=4))
def test_events_are_read_as_they_were_packed(lists):
    value = msgpack.Packer().pack_array_header(len(lists)) + b"".join(map(packed_events, lists))
    assert unpacked_events(value, len(lists)) == [
        [one._replace(label=nfc(one.label)) for one in each] for each in lists
    ]


def test_an_entry_of_spoilt_events_is_read_or_refused_in_one_line(tmp_path):
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        writer.add(Record(b"x", "Drum"), [Event(0.1, 0.2, "Drum")])
    valid, rng = LMDBReader(tmp_path / "a.lmdb").stored_beside()[0], Random(0)
    for number, how in enumerate(list(mutations.BYTES) * 3):
        path, spoilt = tmp_path / f"{number}.lmdb", how(valid, rng)
        with lmdb.open(str(path), subdir=False, lock=False) as environment, environment.begin(write=True) as each:
            each.put(b"__len__", msgpack.packb(1))
            each.put(EVENTS, spoilt)
        events, message = refused(LMDBReader(path).require_events)
        assert events or message == f"{path}: its __events__ entry cannot be read. The file is damaged", (how, spoilt)


@settings(fuzzed, max_examples=30)
@given(values=st.lists(st.binary(max_size=40) | PACKABLE.map(msgpack.packb), min_size=1, max_size=3))
def test_annotations_of_any_values(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("fuzzed") / "a.lmdb"
    with lmdb.open(str(path), subdir=False, lock=False) as environment, environment.begin(write=True) as transaction:
        for index, value in enumerate(values):
            transaction.put(str(index).encode(), value)
        transaction.put(b"__len__", msgpack.packb(len(values)))
    annotations, message = refused(lambda: list(LMDBReader(path).annotations()))
    assert "a.lmdb, record " in message if annotations is None else len(annotations) == len(values)


@fuzzed
@given(
    text=st.one_of(
        st.text(st.sampled_from("0.1\t\n\r\0 aDrum,nE-\u2028"), max_size=60).map(str.encode), st.binary(max_size=60)
    )
)
def test_any_annotation_file_is_read_or_refused(tmp_path, text):
    (tmp_path / "x.txt").write_bytes(text)
    events, message = refused(read_events, tmp_path / "x.txt")
    assert "x.txt" in message if events is None else all(one.label and 0 <= one.onset <= one.offset for one in events)
    events, message = refused(listed_events, tmp_path / "x.txt")
    assert "x.txt" in message if events is None else events and not any("," in event.label for event in events)


@pytest.fixture(scope="module")
def flac():
    stream = io.BytesIO()
    soundfile.write(stream, tone_clip(["Drum"], 0), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


@fuzzed
@given(rng=RNG, how=st.sampled_from(mutations.BYTES))
def test_spoilt_flac_is_whole_samples_or_refused(flac, rng, how):
    spoilt = how(flac, rng)
    samples, message = refused(decode, spoilt, SAMPLE_RATE, "record 3")
    if samples is None:
        assert message.startswith("record 3: ")
    else:
        with soundfile.SoundFile(io.BytesIO(spoilt)) as file:
            assert samples.shape == (file.frames,) and len(samples) >= 1
        assert samples.dtype == np.float32 and np.isfinite(samples).all() and np.abs(samples).max() <= 1
    assert len(decode(flac, SAMPLE_RATE, "whole")) == CLIP


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint, small but for nothing in it."""
    path = tmp_path_factory.mktemp("checkpoint") / "whole.ckpt"
    torch.save(
        {
            "epoch": 1,
            "hyper_parameters": {"cfg": VALID, "lbl_map": {"a": 0, "b": 1, "c": 2}, "seed": 3},
            "state_dict": {"net.w": torch.arange(9.0), "net.b": torch.ones(2, 2)},
        },
        path,
    )
    return path


@settings(fuzzed, max_examples=100)
@given(rng=RNG, how=st.sampled_from(mutations.BYTES))
def test_a_spoilt_checkpoint_is_read_or_refused(checkpoint, tmp_path, rng, how):
    (tmp_path / "x.ckpt").write_bytes(how(checkpoint.read_bytes(), rng))
    found, message = refused(read_checkpoint, tmp_path / "x.ckpt")
    assert (
        "x.ckpt: " in message
        if found is None
        else all(isinstance(value, torch.Tensor) for value in found.weights.values())
    )


@settings(fuzzed, max_examples=100)
@given(rng=RNG, how=st.sampled_from(mutations.TREES))
def test_a_checkpoint_of_other_content_is_read_or_refused(checkpoint, tmp_path, rng, how):
    content = torch.load(checkpoint, weights_only=True)
    torch.save(how(content, rng), tmp_path / "x.ckpt")
    found, message = refused(read_checkpoint, tmp_path / "x.ckpt")
    assert "x.ckpt" in message if found is None else found.config.model.num_classes


@fuzzed
@given(
    content=TREES
    | st.fixed_dictionaries(
        {
            "medians": st.lists(st.integers(-1, 9) | SCALARS, min_size=2, max_size=4) | TREES,
            "thresholds": st.lists(st.floats(0, 1) | SCALARS, min_size=2, max_size=4) | TREES,
        }
    )
)
def test_any_tree_is_decisions_of_events_or_refused(content):
    found, message = refused(read_decisions, EventDecisions, content, 3, "x.ckpt")
    if message is not None:
        assert message.startswith("x.ckpt: ") and message.endswith("Is it damaged?") and "\n" not in message
    elif content is not None:
        assert len(found.medians) == 3 and all(length % 2 == 1 for length in found.medians)
        assert found.limits.shape == (3,) and all(0 <= limit <= 1 or limit == np.inf for limit in found.limits)
