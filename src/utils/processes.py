"""Which of several processes or machines this is, before any of them knows the others."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from src.errors import UserError

Item = TypeVar("Item")

TIME_TO_REPORT = 3  # s for another process to say what is wrong, before a launcher ends all because this one has ended
SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")


def is_first() -> bool:
    """Whether this process is the one of a run that logs and writes."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID"))


class Part(NamedTuple):
    """Part `number` of `of`, counted from 1, of work that is divided: each part is for a machine of its own."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """The part that `K/N` means.

        Raises:
            UserError: it is none.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"{text!r} is no part such as 1/4, 2/4, 3/4 or 4/4")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of_slurm(cls, environment: Mapping[str, str]) -> "Part":
        """The part that a task of a SLURM job array is, by the variables that SLURM sets.

        Raises:
            UserError: they are not set, or the tasks are not 0 to N - 1 or 1 to N: some were left out.
        """
        given = {name: environment.get(name, "") for name in SLURM}
        for name, value in given.items():
            if not re.fullmatch("[0-9]{1,9}", value):
                raise UserError(f"{name} is {value!r}. Is this a task of a job array, of sbatch --array=1-4?")
        task, first, last, count = map(int, given.values())
        if first > 1 or last - first + 1 != count or not first <= task <= last:
            tasks = f"task {task} of an array of {count}, from {first} to {last}"
            raise UserError(f"{tasks}, is no part of the whole: give all of --array=1-N, or name the part, as 3/4")
        return cls(task - first + 1, count)

    def take(self, items: Sequence[Item]) -> Sequence[Item]:
        """The part's items, which follow each other. Those of all parts in turn are all items.

        Raises:
            UserError: there are more parts than items.
        """
        if len(items) < self.of:
            raise UserError(f"--part {self}: there are {len(items)} items for {self.of} parts. Choose fewer parts")
        start, stop = (len(items) * number // self.of for number in (self.number - 1, self.number))
        return items[start:stop]

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"
