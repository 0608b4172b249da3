"""What jobs of the benchmarks do: nothing, wait, or keep Python busy."""

import threading
import time
from collections.abc import Callable
from typing import Final

JOB_TYPE: Final = "bench"


def work_of(name: str) -> Callable[[], None]:
    """Return what a job does besides being counted: ``noop``, ``wait:MS`` or ``burn:MS``, of CPU time of its thread."""
    kind, _, milliseconds = name.partition(":")
    seconds = float(milliseconds or 0) / 1000
    match kind:
        case "noop":
            return _nothing
        case "wait":
            return lambda: _wait(seconds)
        case "burn":
            return lambda: _burn(seconds)
        case _:
            raise ValueError(f"there is no handler {name!r}")


def _nothing() -> None: ...


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def _burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
