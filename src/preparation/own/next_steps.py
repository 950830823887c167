"""What follows the preparation: a cfg for the data, and the commands that train, score and tag."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = ROOT / "cfgs_v2" / "own_data.cfg"
HOP = 220  # samples between frames, the template's audio_config.hop_len
BATCH_SIZE = 32  # at most. Several batches in an epoch matter more
SCRIPTS = {"multiclass": "train_classifier.py", "multilabel": "train_gise_mixtures.py"}


@dataclass(frozen=True)
class NextSteps:
    """Of one data set."""

    out_dir: str  # its folder, as it was given
    kind: str  # multiclass or multilabel
    folds: Sequence[int]  # their numbers, if there are any
    clip_seconds: float
    sample_rate: int  # Hz

    @property
    def frames(self) -> int:
        """Of a training clip: 500 of 5 s, as few as all clips have."""
        found = int(self.clip_seconds * self.sample_rate / HOP)
        return found - found % 10 if found > 10 else max(found, 1)

    def cfg(self, num_classes: int, num_train_clips: int, delimiter: str) -> str:
        """The commented template with the values of these data."""
        train, val = ("all", "all") if self.folds else ("train", "val")
        values: dict[str, Any] = {
            "num_classes": num_classes,
            "type": self.kind,
            "batch_size": max(1, min(BATCH_SIZE, num_train_clips // 4)),
            "sample_rate": self.sample_rate,
            "min_duration": self.clip_seconds,
            "delimiter": delimiter,
            "label_map": os.path.join(self.out_dir, "lbl_map.json"),
            "train_lmdb": os.path.join(self.out_dir, f"{train}.lmdb"),
            "val_lmdb": os.path.join(self.out_dir, f"{val}.lmdb"),
        }
        text = TEMPLATE.read_text(encoding="utf-8")
        for key, value in values.items():
            shown = yaml.safe_dump([value], default_flow_style=True, width=float("inf")).strip()[1:-1]
            before, name, old, behind = re.split(rf"^(  {key}: )(\S+ +)", text, maxsplit=1, flags=re.MULTILINE)
            text = before + name + shown.ljust(len(old) - 1) + " " + behind  # comments stay in their column
        return text

    def script(self, epochs: int) -> str:
        """The commands as a shell script, which ends with the first one that fails."""
        return f"set -e\ncd {quoted(os.getcwd())}\n{self.commands(epochs)}\n".replace(" || break; done", "; done")

    def commands(self, epochs: int) -> str:
        """Lines for a shell, in the folder that the paths start from."""
        data, run = self.out_dir, os.path.join("my_runs", os.path.basename(os.path.abspath(self.out_dir)))
        part, run_of_tags = ("all", f"{run}/r1/fold_{self.folds[0]}") if self.folds else ("eval", run)
        table = quoted(run, "results.csv")
        length = f"--random_clip_size {self.frames} --val_clip_size {self.frames}"
        train = f"--cfg_file {quoted(data, 'mine.cfg')} --epochs {epochs} --keep 3 {length}"
        if self.folds:
            numbers = " ".join(map(str, self.folds))
            expdir = f"{quoted(run, 'r1', 'fold_')}$fold"
            train = f"{python('train_esc50_classifier.py')} {train} -e {expdir} --fold_index $fold"
            train = f"for fold in {numbers}; do {train} || break; done"
        else:
            train = f"{python(SCRIPTS[self.kind])} {train} -e {quoted(run)}"
        scored = f"--exp_dir {quoted(run)} --best_only --lmdb_path {quoted(data, f'{part}.lmdb')} --results_csv {table}"
        lines = [train, f"{python('eval_gise_mixtures.py')} {scored} --num_timesteps {self.frames + 1}"]
        if self.folds:
            lines.append(f"{python('scripts/summarise_results.py')} {table} --out_dir {quoted(run, 'summary')}")
        window = f"--window {self.clip_seconds:g} --hop {self.clip_seconds / 2:g}"
        tagged = f"--ckpt_path {quoted(run_of_tags)} --audio {quoted(data, 'flac', part)} {window}"
        tables = f"--csv {quoted(run, 'tags.csv')} --decisions {quoted(run, 'decisions.csv')}"
        lines.append(f"{python('predict.py')} {tagged} {tables}")
        return "\n".join(lines)


def quoted(*parts: str) -> str:
    """A path as a word of a shell."""
    path = os.path.join(*parts)
    return shlex.quote(os.path.join(os.curdir, path) if path.startswith("-") else path)


def python(script: str) -> str:
    """What starts a script of this project from the current folder."""
    return f"python {quoted(script if os.path.exists(script) else str(ROOT / script))}"
