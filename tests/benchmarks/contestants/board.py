"""A board of numbers that several processes see: how many jobs each of them has begun, at the cost of a store."""

import itertools
import mmap
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_BYTES: Final = 8


class Board:
    """The numbers in the open file of this *descriptor*, which worker processes inherit."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.path = f"/dev/fd/{descriptor}"
        self._numbers = _numbers(self.path)

    @property
    def total(self) -> int:
        """The sum of all."""
        return sum(self._numbers)


@contextmanager
def board_for(processes: int) -> Iterator[Board]:
    """Have a board with a number for each of so many processes; its file has no name that could be left behind."""
    with tempfile.TemporaryFile() as file:
        file.truncate(processes * _BYTES)
        yield Board(file.fileno())


def counter_on(path: str, place: int) -> Callable[[], None]:
    """Return what counts one up at *place* of the board in *path*; of several threads, one may be a few behind."""
    numbers = _numbers(path)
    count = itertools.count(1)

    def count_up() -> None:
        numbers[place] = next(count)

    return count_up


def _numbers(path: str) -> memoryview:
    with Path(path).open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
