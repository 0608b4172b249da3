"""Worker processes, as a drain runs them: each gets ready, starts at a word, and tells in the end what it has used.

Its standard input and output carry the words: it says ``ready``, is told ``go``, then ``end``, and answers with JSON.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Self

_PATIENCE: Final = 60.0


class WorkerProcess:
    """A process that runs a module of this package with *arguments*; a ``with`` block ends it, whatever happens.

    It inherits the open files *descriptors*.
    """

    def __init__(self, module: str, arguments: Sequence[str], descriptors: Sequence[int] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.benchmarks.contestants.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=descriptors,
        )

    def wait_until_ready(self) -> None:
        """Wait until its imports and connections are done."""
        if self._read() != "ready":
            raise RuntimeError("a worker process did not get ready")

    def go(self) -> None:
        """Have it start."""
        self._tell("go")

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used since it was told to start."""
        self._tell("look")
        return float(self._read())

    def end(self) -> dict[str, Any]:
        """Have it end; return what it says of itself."""
        self._tell("end")
        used: dict[str, Any] = json.loads(self._read())
        self._process.wait(_PATIENCE)
        return used

    @property
    def has_ended(self) -> bool:
        """Whether it is gone, however that came."""
        return self._process.poll() is not None

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def serve(working: Callable[[], AbstractContextManager[object]], **known: Callable[[], object]) -> None:
    """Be such a process: get ready, enter *working* at the word, leave it in the end, and tell what is *known* then."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if sys.stdin.readline() != "go\n":
        return
    cpu = time.process_time()
    with working():
        while sys.stdin.readline() == "look\n":
            sys.stdout.write(f"{time.process_time() - cpu}\n")
            sys.stdout.flush()
        cpu = time.process_time() - cpu
    answer = {"cpu_seconds": cpu, "peak_bytes": peak_bytes(), **{name: value() for name, value in known.items()}}
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


def peak_bytes() -> int:
    """Return the most memory that this process has had at once; on macOS, that a process had which became this one."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
