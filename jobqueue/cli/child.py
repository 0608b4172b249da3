"""One place for a worker process, filled by one after the other."""

import multiprocessing
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Final

from jobqueue.cli.plan import Plan
from jobqueue.cli.worker_process import NOW, STOP, work

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

_SHORTEST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_SECONDS_TO_SETTLE: Final = 10.0
# What a pool takes beyond its time, to let jobs go and to tell the database so.
_SECONDS_OF_GRACE: Final = 8.0


class Child:
    """The process that is here now, or when the next one starts."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._process: SpawnProcess | None = None
        self._pipe: Connection[str, bool | str] | None = None
        self._started_at = 0.0
        self._is_hurried = False
        self.is_ready = False
        self.has_been_ready = False
        self.refusal: str | None = None
        self.pause = 0.0
        """How many seconds there were, or are to be, between a process that died soon and the next one."""
        self.starts_at: float | None = None
        self.ends_at: float | None = None
        """When it is killed, once it was asked to end."""

    def start(self) -> None:
        """Start a process. Raises OSError: there is no room for one, and it is tried again after a pause."""
        self._is_hurried, self.has_been_ready, self.refusal = False, False, None
        self.starts_at, self.ends_at = None, None
        try:
            self._pipe, self._process = _started(self._plan)
        except OSError:
            self._pause()
            raise
        self._started_at = time.monotonic()

    @property
    def pid(self) -> int | None:
        """The process's id."""
        return None if self._process is None else self._process.pid

    @property
    def is_wanted(self) -> bool:
        """Whether there is a process, or is to be one."""
        return self._process is not None or self.starts_at is not None

    @property
    def due_at(self) -> float:
        """When there is something to do for it; never, where a process was killed, or its jobs may take for ever."""
        return min(self.starts_at or inf, self.ends_at or inf)

    @property
    def has_ended(self) -> bool:
        """Whether the process is over, and nobody has taken leave of it."""
        return self._process is not None and self._process.exitcode is not None

    @property
    def sources(self) -> "list[int | Connection[str, bool | str]]":
        """What to wait for: the end of the process, and what it says."""
        if self._process is None:
            return []
        return [self._process.sentinel, *([] if self._pipe is None else [self._pipe])]

    def listen(self) -> bool:
        """Hear what the process has said; return whether it has become ready."""
        was_ready = self.is_ready
        try:
            while self._pipe is not None and self._pipe.poll():
                said = self._pipe.recv()
                if isinstance(said, str):
                    self.refusal = said
                else:
                    self.is_ready = said and self.ends_at is None
                    self.has_been_ready = True
        except (EOFError, OSError):
            self._close_pipe()
        return self.is_ready and not was_ready

    def ask_to_end(self) -> None:
        """Have the process end when its jobs have; one that was never ready has none."""
        if self._process is None or self.ends_at is not None:
            return
        within = self._plan.finish_within
        self._tell(STOP, inf if within is None else within.total_seconds())
        self.is_ready = False
        if not self.has_been_ready:
            self._process.terminate()

    def hurry(self) -> None:
        """Have the process let its jobs go; kill it when it was told that before."""
        if self._is_hurried:
            self.kill()
        elif self._process is not None:
            self._is_hurried = True
            self._tell(NOW, 0.0)

    def _tell(self, what: str, seconds: float) -> None:
        self.ends_at = time.monotonic() + seconds + _SECONDS_OF_GRACE
        if self._pipe is not None:
            with suppress(OSError):
                self._pipe.send(what)

    def kill(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self.ends_at = inf

    def wait_for_end(self) -> None:
        """Wait until the process, which was asked to end, has ended, or its time is over."""
        if self._process is not None and self.ends_at is not None:
            self._process.join(None if self.ends_at == inf else max(0.0, self.ends_at - time.monotonic()))

    def take_leave(self) -> int:
        """Return how the process, which has ended, has ended; the next one starts soon."""
        assert self._process is not None
        self._process.join()
        code = self._process.exitcode
        assert code is not None
        self._process.close()
        self._close_pipe()
        has_settled = self.ends_at is not None or time.monotonic() - self._started_at > _SECONDS_TO_SETTLE
        self._process, self.is_ready, self.ends_at = None, False, None
        self._pause(has_settled=has_settled)
        return code

    def _pause(self, *, has_settled: bool = False) -> None:
        self.pause = 0.0 if has_settled else min(max(2 * self.pause, _SHORTEST_PAUSE), _LONGEST_PAUSE)
        self.starts_at = time.monotonic() + self.pause

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


def _started(plan: Plan) -> "tuple[Connection[str, bool | str], SpawnProcess]":
    context = multiprocessing.get_context("spawn")
    ours, others = context.Pipe()
    process = context.Process(target=work, args=(plan, others), name="jobqueue-worker")
    try:
        with _ctrl_c_withheld():
            process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        others.close()  # the process alone has it now: its end is the end of the pipe
    return ours, process


@contextmanager
def _ctrl_c_withheld() -> Generator[None]:
    """Have a process that starts in the block not end by a Ctrl-C of the terminal before it can say that it will not.

    It inherits what is withheld here.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how_ended(code: int) -> str:
    """Say what an exit code means, as multiprocessing gives it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
