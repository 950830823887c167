"""eval_events.py and what else scores events, through the command lines, against scores made step by step."""

import csv
import json
import os
import signal

import pytest
import torch
from conftest import CLASSES, as_events, cfg_tree, error_line, run_script, start, train_command, wait_until, write_cfg
from small_sources import generate, write_sources

from src.config.loading import load_config
from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader
from src.data.lmdb.writer import LMDBWriter
from src.data.loading import open_dataset
from src.data.transforms import evaluation_chain
from src.learning.events.choosing import choose_events, smoothed
from src.learning.events.seen import seen
from src.models.checkpoint import read_checkpoint
from src.models.decisions import EventDecisions
from src.runs.folder import best
from src.scoring.bootstrap import interval
from src.scoring.events.scores import EVENT_SCORES, bootstrap_event_scores, event_scores
from src.scoring.events.slices import slices

FRAMES = "--num_timesteps", 64, "--num_workers", 0


@pytest.fixture(scope="module")
def events_cfg(corpus):
    tree = cfg_tree(corpus)
    tree["model"] |= {"type": "events", "frame_ms": 20}
    return write_cfg(corpus / "scored_events.cfg", tree)


@pytest.fixture(scope="module")
def run(corpus, events_cfg, tmp_path_factory):
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("events") / "r1" / "mixup" / "run"
    run_script(*train_command(corpus, folder, cfg=events_cfg, epochs=2), check=0)
    return folder


@pytest.fixture(scope="module")
def checkpoint(run):
    return best((run / "ckpts").glob("*.ckpt"))


@pytest.fixture(scope="module")
def plain(checkpoint, tmp_path_factory):
    """The same network without event decisions."""
    path = tmp_path_factory.mktemp("plain") / "plain.ckpt"
    content = torch.load(checkpoint, weights_only=False)
    del content["event_decisions"]
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def soundscapes(tmp_path_factory):
    """A folder of soundscapes with their JAMS files, and their LMDB."""
    folder = tmp_path_factory.mktemp("soundscapes")
    sources = write_sources(folder / "sources")
    generate(sources, folder / "mix", "--format", "flac", count=4, check=0)
    run_script("pack_mixtures_into_lmdb.py", "--mixture_dir", folder / "mix", "--lmdb_path", folder / "a.lmdb", check=0)
    return folder


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def evaluate(path, lmdb_path, table, *more, script="eval_events.py", check=0):
    words = "--ckpt_path", path, "--lmdb_path", lmdb_path, "--results_csv", table, *FRAMES, *more
    return run_script(script, *words, check=check)


def network_said(path, lmdb_path, events_cfg, untrained=False):
    """FrameScores and EventTruth of a checkpoint, of all clips in one batch."""
    config = load_config(events_cfg)
    label_map = LabelMap.load(config.data.label_map_path())
    dataset = open_dataset(config, str(lmdb_path), label_map, evaluation_chain(64))
    network = (read_checkpoint(path).untrained_network() if untrained else read_checkpoint(path).network()).eval()
    dataset.use_frames(network.stride)
    batch = dataset.__getitems__([(0, index) for index in range(len(dataset))])
    with torch.inference_mode():
        outputs = network(batch.inputs, of_frames=True)
    return seen(outputs.sigmoid(), batch.spans, dataset)


def require_scores(row, due):
    for name in EVENT_SCORES:
        assert float(row[name]) == pytest.approx(float(due[name]), abs=1e-6, nan_ok=True), name


def test_scores_are_those_of_the_networks_own_outputs(corpus, events_cfg, run, checkpoint, tmp_path):
    """With the filters and thresholds in the checkpoint. The clips' scores are those of the other script."""
    table = tmp_path / "r.csv"
    evaluate(checkpoint, corpus / "eval.lmdb", table, "--per_class")
    (row,) = rows_of(table)
    decisions = read_checkpoint(checkpoint).event_decisions
    scores, truth = network_said(checkpoint, corpus / "eval.lmdb", events_cfg)
    due = event_scores(smoothed(scores, decisions.medians), truth, decisions.limits)
    require_scores(row, due)
    evaluate(checkpoint, corpus / "eval.lmdb", tmp_path / "g.csv", script="eval_gise_mixtures.py")
    (clips,) = rows_of(tmp_path / "g.csv")
    for name in ("mAP", "mAUC", "dprime", "ckpt_digest", "eval_data", "num_timesteps"):
        assert row[name] == clips[name]
    assert not set(EVENT_SCORES) & clips.keys()
    classes = rows_of(tmp_path / "r_events.csv")
    assert [each["class"] for each in classes] == [CLASSES[c] for c in range(3) if (truth.label == c).any()]
    for each in classes:
        c = CLASSES.index(each["class"])
        assert int(each["events"]) == (truth.label == c).sum() and int(each["median"]) == decisions.medians[c]
        assert float(each["threshold"] or "inf") == decisions.limits[c]
        for name in ("psds1", "psds2", "collar_f", "intersection_f", "segment_f", "best_collar_f", "segment_auroc"):
            found = float(each[name] or "nan")
            assert found == pytest.approx(due[f"{name}_per_class"][c], abs=1e-6, nan_ok=True), name
    assert (tmp_path / "r_per_class.csv").exists()


def test_a_folder_is_scored_and_its_network_as_it_was_before_training(corpus, events_cfg, run, checkpoint, tmp_path):
    """Before training nothing is chosen: no filters, thresholds of 0.5."""
    table = tmp_path / "r.csv"
    words = "--exp_dir", run.parent.parent, "--untrained", "--lmdb_path", corpus / "eval.lmdb", "--results_csv", table
    assert "has no thresholds" not in run_script("eval_events.py", *words, *FRAMES, check=0).stderr
    rows = {row["epoch"]: row for row in rows_of(table)}
    assert sorted(rows) == ["", "0", "1"]
    require_scores(rows[""], event_scores(*network_said(checkpoint, corpus / "eval.lmdb", events_cfg, untrained=True)))
    decisions = read_checkpoint(checkpoint).event_decisions
    scores, truth = network_said(checkpoint, corpus / "eval.lmdb", events_cfg)
    due = event_scores(smoothed(scores, decisions.medians), truth, decisions.limits)
    require_scores(next(row for row in rows.values() if row["ckpt_path"] == str(checkpoint)), due)


def test_what_is_asked_for_besides_is_made_and_nothing_is_scored_twice(corpus, events_cfg, checkpoint, tmp_path):
    table = tmp_path / "r.csv"

    def evaluated(*more):
        evaluate(checkpoint, corpus / "eval.lmdb", table, *more)
        return rows_of(table)[0]

    first = evaluated()
    assert evaluated() == first
    more = "--bootstrap", 20, "--seed", 3
    drawn = evaluated(*more)
    assert drawn["evaluated"] > first["evaluated"] and evaluated(*more) == drawn
    decisions = read_checkpoint(checkpoint).event_decisions
    scores, truth = network_said(checkpoint, corpus / "eval.lmdb", events_cfg)
    resampled = bootstrap_event_scores(smoothed(scores, decisions.medians), truth, 20, 3, decisions.limits)
    for name in EVENT_SCORES:
        ends = [float(drawn[f"{name}_{end}"]) for end in ("low", "high")]
        assert ends == pytest.approx(interval(resampled[name]), abs=1e-6, nan_ok=True), name
    for flags, beside in (("--per_class",), "events"), (("--slices",), "slices"):
        before = rows_of(table)[0]
        after = evaluated(*flags)
        assert after["evaluated"] > before["evaluated"] and (tmp_path / f"r_{beside}.csv").exists()
        assert evaluated(*flags) == after
    # A row without event scores, of the other script, is scored for them.
    evaluate(checkpoint, corpus / "eval.lmdb", tmp_path / "g.csv", script="eval_gise_mixtures.py")
    evaluate(checkpoint, corpus / "eval.lmdb", tmp_path / "g.csv")
    require_scores(rows_of(tmp_path / "g.csv")[0], {name: float(first[name]) for name in EVENT_SCORES})


def test_slices_have_the_scores_of_their_events(events_cfg, soundscapes, checkpoint, tmp_path):
    """By SNR too, with the folder of the JAMS files."""
    table, lmdb_path = tmp_path / "r.csv", soundscapes / "a.lmdb"
    evaluate(checkpoint, lmdb_path, table, "--slices")
    without = rows_of(tmp_path / "r_slices.csv")
    evaluate(checkpoint, lmdb_path, tmp_path / "s.csv", "--slices", soundscapes / "mix")
    rows = {row["slice"]: row for row in rows_of(tmp_path / "s_slices.csv")}
    assert any(name.startswith("snr: ") for name in rows)
    assert [row["slice"] for row in without] == [name for name in rows if not name.startswith("snr: ")]
    decisions = read_checkpoint(checkpoint).event_decisions
    scores, truth = network_said(checkpoint, lmdb_path, events_cfg)
    scores = smoothed(scores, decisions.medians)
    assert sum(int(row["events"]) for name, row in rows.items() if name.startswith("snr: ")) == len(truth.label)
    for each in slices(truth):
        row = rows[f"{each.by}: {each.range}"]
        assert int(row["events"]) == each.scored.sum()
        require_scores(row, event_scores(scores, truth.only(each.scored), decisions.limits))


def without_events(corpus, path):
    reader = LMDBReader(corpus / "eval.lmdb")
    with LMDBWriter(path) as writer:
        for index in range(len(reader)):
            writer.add(reader[index])
    return path


def test_what_has_no_events_is_refused_in_one_line_and_the_table_stays(
    corpus, trained, soundscapes, checkpoint, tmp_path
):
    table = tmp_path / "r.csv"
    evaluate(checkpoint, corpus / "eval.lmdb", table)
    before = table.read_bytes()
    tagger = next((trained / "r1").rglob("epoch=01*.ckpt"))
    (tmp_path / "no").mkdir()
    old = without_events(corpus, tmp_path / "old.lmdb")
    (tmp_path / "m.csv").write_text(f"files,labels\n{corpus / 'eval' / 's000.flac'},Drum\n")
    for words, said in (
        (("--ckpt_path", tagger, "--lmdb_path", corpus / "eval.lmdb"), "is of a tagger, and scores of events are of"),
        (("--ckpt_path", checkpoint, "--lmdb_path", old), f"{old}: has no events"),
        (("--ckpt_path", checkpoint, "--manifest", tmp_path / "m.csv"), "has labels, but no events"),
        (("--ckpt_path", checkpoint, "--lmdb_path", soundscapes / "a.lmdb", "--slices", tmp_path / "no"), "no JAMS"),
        (
            ("--ckpt_path", checkpoint, "--lmdb_path", corpus / "eval.lmdb", "--slices", soundscapes / "mix"),
            "has no JAMS file for",
        ),
    ):
        line = error_line(run_script("eval_events.py", *words, "--results_csv", table, *FRAMES))
        assert said in line, line
        assert not (tmp_path / "r_slices.csv").exists()
        if said != "has no JAMS file for":  # found out when the row is there, which stays
            assert table.read_bytes() == before
    rows, kept = rows_of(table), list(csv.DictReader(before.decode().splitlines()))
    assert [row | {"evaluated": ""} for row in rows] == [row | {"evaluated": ""} for row in kept]


def test_without_event_decisions_a_half_is_taken_with_a_warning(corpus, events_cfg, checkpoint, plain, tmp_path):
    result = evaluate(plain, corpus / "eval.lmdb", tmp_path / "r.csv", "--per_class")
    assert f"{plain}: has no thresholds of events. Taken: 0.5, without filters" in result.stderr
    require_scores(
        rows_of(tmp_path / "r.csv")[0], event_scores(*network_said(plain, corpus / "eval.lmdb", events_cfg), 0.5)
    )
    assert {(row["median"], row["threshold"]) for row in rows_of(tmp_path / "r_events.csv")} == {("1", "0.5")}
    assert "thresholds of events" not in evaluate(checkpoint, corpus / "eval.lmdb", tmp_path / "s.csv").stderr


def test_two_networks_are_compared_by_their_events_if_both_have_them(corpus, checkpoint, plain, trained, tmp_path):
    tagger = next((trained / "r1").rglob("epoch=01*.ckpt"))
    found = {}
    for other in (plain, tagger):
        words = "--ckpt_path", checkpoint, "--other_ckpt_path", other, "--lmdb_path", corpus / "eval.lmdb"
        words += "--bootstrap", 5, "--json", tmp_path / "c.json", *FRAMES
        run_script("scripts/compare_checkpoints.py", *words, check=0)
        found[other] = {row["name"]: row for row in json.loads((tmp_path / "c.json").read_text())}
    assert list(found[tagger]) == ["mAP", "mAUC", "dprime"]
    assert list(found[plain])[:3] == list(found[tagger]) and set(EVENT_SCORES) == set(list(found[plain])[3:])
    for number, path in enumerate((checkpoint, plain)):
        evaluate(path, corpus / "eval.lmdb", tmp_path / f"{number}.csv")
        (row,) = rows_of(tmp_path / f"{number}.csv")
        for name in (*EVENT_SCORES, "mAP"):
            value = found[plain][name][("first", "second")[number]]
            assert float(row[name]) == pytest.approx(float("nan") if value is None else value, abs=1e-6, nan_ok=True)


def test_decisions_are_chosen_in_training_and_anew(corpus, events_cfg, run, plain, tmp_path):
    """On the validation clips. Of other batches the last bits may differ."""
    copy = tmp_path / "copy.ckpt"
    words = "--ckpt_path", plain, "--lmdb_path", corpus / "val.lmdb", *FRAMES
    run_script("scripts/calibrate.py", *words, "--output", copy, check=0)
    assert read_checkpoint(plain).event_decisions is None
    for path in (copy, *sorted((run / "ckpts").glob("*.ckpt"))):
        found = read_checkpoint(path).event_decisions
        due = choose_events(*network_said(path, corpus / "val.lmdb", events_cfg))
        assert found.medians == due.medians and None not in found.thresholds
        assert found.thresholds == pytest.approx(due.thresholds, rel=1e-3)


def test_clips_without_events_choose_no_events(corpus, plain, checkpoint, tmp_path):
    """Their labels still choose thresholds of clips, and the events' own stay."""
    old = without_events(corpus, tmp_path / "old.lmdb")
    for path in (plain, checkpoint):
        words = "--ckpt_path", path, "--lmdb_path", old, "--output", tmp_path / "copy.ckpt", *FRAMES
        run_script("scripts/calibrate.py", *words, check=0)
        assert read_checkpoint(tmp_path / "copy.ckpt").decisions is not None
        assert read_checkpoint(tmp_path / "copy.ckpt").event_decisions == read_checkpoint(path).event_decisions


def test_a_tagger_made_one_of_events_is_scored(corpus, trained, tmp_path):
    tagger = next((trained / "r1").rglob("epoch=01*.ckpt"))
    path = as_events(tagger, tmp_path / "a.ckpt", **EventDecisions.plain(3).as_dict())
    evaluate(path, corpus / "eval.lmdb", tmp_path / "r.csv")
    assert 0 <= float(rows_of(tmp_path / "r.csv")[0]["segment_auroc"]) <= 1


def test_a_run_interrupted_within_an_epoch_ends_with_the_same_decisions(corpus, events_cfg, run, tmp_path):
    folder = tmp_path / "run"
    words = train_command(corpus, folder, "--checkpoint_every_n_steps", 1, cfg=events_cfg, epochs=2)
    process = start(tmp_path, *words)
    wait_until(process, (folder / "resume.ckpt").exists)
    os.kill(process.pid, signal.SIGTERM)
    process.join(120)
    assert process.exitcode == 128 + signal.SIGTERM and (folder / "resume.ckpt").exists()
    result = run_script(*words, check=0)
    assert f"resuming from {folder / 'resume.ckpt'}" in result.stderr
    ends = [sorted((each / "ckpts").iterdir()) for each in (folder, run)]
    assert [path.name for path in ends[0]] == [path.name for path in ends[1]] and len(ends[0]) == 2
    for one, other in zip(*ends):
        first, second = read_checkpoint(one), read_checkpoint(other)
        assert first.event_decisions == second.event_decisions is not None and first.decisions == second.decisions
