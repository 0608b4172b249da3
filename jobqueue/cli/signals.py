"""Signals as something to wait for, beside pipes and processes: no handler does anything."""

import signal
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Self

ENDING: Final = (signal.SIGTERM, signal.SIGINT)
RELOADING: Final[int | None] = getattr(signal, "SIGHUP", None)
# A process that a job has forked may keep open what would tell of the end of its parent.
_CHILD_HAS_DIED: Final[int | None] = getattr(signal, "SIGCHLD", None)
OF_SUPERVISORS: Final = (*ENDING, *(number for number in (RELOADING, _CHILD_HAS_DIED) if number is not None))
"""What supervisors heed, as far as the system has it."""

_MANY: Final = 4096


class Signals:
    """Within the ``with`` block, notes those of *numbers* that arrive, for the main thread to ``take``.

    What is to be waited for is *source*.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = tuple(numbers)
        self._before = dict[int, Any]()

    def __enter__(self) -> Self:
        self._read, self._write = socket.socketpair()
        self._read.settimeout(0)
        self._write.settimeout(0)
        # A full buffer has woken whoever waits, anyway.
        self._fd_before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _note) for number in self._numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        self._read.close()
        self._write.close()

    @property
    def source(self) -> socket.socket:
        """What becomes readable when a signal has arrived."""
        return self._read

    def take(self) -> list[int]:
        """Return the signals that have arrived since the last call, in their order; never wait for one."""
        try:
            return [number for number in self._read.recv(_MANY) if number in self._numbers]
        except BlockingIOError:
            return []

    def wake(self) -> None:
        """Wake whoever waits, without a signal; from any thread."""
        self._write.send(b"\0")


def _note(number: int, frame: object) -> None:
    """Do nothing: the number has been written where it is waited for."""
