"""The fault campaign: kills commands at random moments, feeds them malformed input, and counts what goes wrong."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

from faults import kills, malformed
from faults.corpus import make_corpus
from faults.processes import Place, run
from faults.verdicts import Before, failures
from src import cli
from src.errors import UserError
from src.utils.progress import progress


@dataclass
class Tally:
    """What came of the cases of one kind."""

    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # landed, late, refused, accepted
    failures: dict[str, list[str]] = field(default_factory=dict)  # by the case's name


@dataclass(frozen=True)
class Campaign:
    """All that the cases share."""

    seed: int
    corpus: Path
    folder: Path  # for the cases' places
    timeout: float = 60.0  # s for a malformed input's command
    keep: bool = False  # places of all cases, not just of those that failed

    def malformed_case(self, number: int, tallies: dict[str, Tally]) -> None:
        """Give one malformed input to the command that reads it."""
        name, place = f"malformed:{number}", Place(self.folder / f"malformed_{number}")
        case = malformed.make_case(self.seed, number, self.corpus, place)
        before = Before.of(self.corpus, place)
        result = run(place, *case.words, umask=case.umask, timeout=self.timeout)
        found = failures(result, self.corpus, place, before, case.umask, case.faulty, case.cwd_is_named)
        tally = tallies.setdefault(case.kind, Tally())
        tally.cases += 1
        tally.counts["accepted" if result.status == 0 else "refused"] += not found
        if found:
            tally.failures[name] = [case.what, " ".join(map(str, case.words))[:1000], *found]
        self._leave(place, found)

    def kill_case(self, number: int, works: dict[str, kills.Work], tallies: dict[str, Tally]) -> None:
        """Kill one command."""
        target = list(works)[number % len(works)]
        name, place = f"kill:{number}", Place(self.folder / f"kill_{number}")
        tally = tallies.setdefault(target, Tally())
        try:
            result = kills.run_case(self.seed, number, works[target], place)
        except (RuntimeError, TimeoutError) as error:
            result = kills.Killed(0, 0, [str(error)])
        tally.cases += 1
        tally.counts["landed"] += result.landed
        tally.counts["late"] += max(0, result.attempts - result.landed)
        if result.failures:
            tally.failures[name] = [target, *result.failures]
        self._leave(place, result.failures)

    def works(self) -> dict[str, kills.Work]:
        """The commands to kill, which make their undisturbed runs when they are first needed."""
        return {name: make(self.corpus, self.folder / name) for name, make in kills.WORKS.items()}

    def _leave(self, place: Place, found: list[str]) -> None:
        if not (found or self.keep):
            shutil.rmtree(place.root)


def run_malformed(campaign: Campaign, numbers: list[int], jobs: int) -> dict[str, Tally]:
    """Malformed inputs by kind, several at a time."""
    tallies = {kind: Tally() for kind in malformed.KINDS}  # in their order, however the threads run
    with ThreadPoolExecutor(jobs) as pool, progress(len(numbers), "malformed inputs", "case") as bar:
        for _ in pool.map(lambda number: campaign.malformed_case(number, tallies), numbers):
            bar.update()
    return tallies


def run_kills(campaign: Campaign, landed: int, only: int | None = None) -> dict[str, Tally]:
    """Kills by target, until so many have landed. One comes after the other, and none disturbs another."""
    tallies = {target: Tally() for target in kills.WORKS}
    works = campaign.works()
    for number in [only] if only is not None else _until(tallies, landed):
        campaign.kill_case(number, works, tallies)
    return tallies


def _until(tallies: dict[str, Tally], landed: int) -> Iterator[int]:
    """Case numbers, until enough kills have landed or a number of cases that would be enough by far has been tried."""
    with progress(landed, "kills that landed", "kill") as bar:
        for number in range(3 * landed):
            done = sum(tally.counts["landed"] for tally in tallies.values())
            bar.update(done - bar.n)
            if done >= landed:
                return
            yield number


def table(tallies: dict[str, Tally], columns: tuple[str, ...], what: str) -> str:
    """A Markdown table, a row a kind and one for all."""
    whole = Tally(
        sum(tally.cases for tally in tallies.values()),
        sum((tally.counts for tally in tallies.values()), Counter()),
        {name: found for tally in tallies.values() for name, found in tally.failures.items()},
    )
    lines = [f"| {' | '.join((what, 'cases', *columns, 'failures'))} |", "| --- |" + " ---: |" * (len(columns) + 2)]
    for name, tally in [*tallies.items(), ("all", whole)]:
        numbers = (tally.cases, *(tally.counts[column] for column in columns), len(tally.failures))
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines)


def report(tallies: dict[str, Tally], seed: int) -> int:
    """Print what failed and how to see it again. Returns how many failed."""
    failed = {name: found for tally in tallies.values() for name, found in tally.failures.items()}
    for name, found in failed.items():
        print(f"\nFAILED {name}: make faults FLAGS='--seed {seed} --only {name}'")
        print("".join(f"  {line}\n" for line in found), end="")
    return len(failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--seed", type=cli.count, default=1, help="of all cases")
    add("--kills", type=cli.count, default=100, help="kills that must land")
    add("--malformed", type=cli.count, default=200, help="malformed inputs")
    add("--kinds", nargs="+", metavar="KIND", choices=malformed.KINDS, help="malformed inputs of these kinds alone")
    add("--only", metavar="NAME:NUMBER", help="one case alone, such as malformed:137. Its place is kept")
    add("--timeout", type=cli.positive(float), default=60.0, help="seconds that a malformed input may take")
    add("--jobs", type=cli.positive(int), default=os.cpu_count(), help="malformed inputs at a time")
    add("--work_dir", help="folder for the corpus and what failed, by default a new one in the temporary folder")
    arguments = parser.parse_args()
    started = time.monotonic()
    if arguments.work_dir:
        Path(arguments.work_dir).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="faults_", dir=arguments.work_dir))
    campaign = Campaign(
        arguments.seed,
        make_corpus(folder / "corpus"),
        folder / "cases",
        arguments.timeout,
        keep=arguments.only is not None,
    )
    what, _, number = (arguments.only or "").partition(":")
    if arguments.only and (what not in ("kill", "malformed") or not number.isdigit()):
        raise UserError(f"--only {arguments.only}: expected kill:NUMBER or malformed:NUMBER")
    kinds = list(malformed.KINDS)
    wanted = (each for each in count() if not arguments.kinds or kinds[each % len(kinds)] in arguments.kinds)
    numbers = [int(number)] if number else list(islice(wanted, arguments.malformed))
    killed = run_kills(campaign, arguments.kills, int(number) if number else None) if what != "malformed" else {}
    spoilt = run_malformed(campaign, numbers, arguments.jobs) if what != "kill" else {}
    failed = report(killed | spoilt, arguments.seed)
    for tallies, columns, name in (
        (killed, ("landed", "late"), "killed"),
        (spoilt, ("refused", "accepted"), "malformed"),
    ):
        if any(tally.cases for tally in tallies.values()):
            print(f"\n{table(tallies, columns, name)}")
    print(f"\nseed {arguments.seed}, {(time.monotonic() - started) / 60:.1f} minutes")
    landed = sum(tally.counts["landed"] for tally in killed.values())
    if failed or arguments.only:
        print(f"kept: {folder}")
    else:
        shutil.rmtree(folder)
    if failed:
        raise UserError(f"{failed} cases failed. See above")
    if not arguments.only and landed < arguments.kills:
        raise UserError(f"only {landed} of {arguments.kills} kills landed. Is the machine too busy?")


if __name__ == "__main__":
    cli.run(main)
