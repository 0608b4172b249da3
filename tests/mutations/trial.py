"""Run named tests on a copy of the code, in a process of their own, and tell how that went."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from tests.mutations.mutation import Mutation

ROOT: Final = Path(__file__).parents[2]
_COPIED: Final = ("jobqueue", "jobqueue_pg", "migrations", "tests", "pyproject.toml")
_OPTIONS: Final = ("-q", "-p", "no:cacheprovider", "-p", "tests.mutations.this_copy")
_EXIT_FAILED: Final = 1


@attrs.frozen
class Trial:
    """How a run of tests ended."""

    passed: bool
    """Whether all tests were run, and none has failed."""
    failures: tuple[str, ...]
    """What pytest says of each test that has failed, in one line."""
    seconds: float
    hung: bool
    output: str

    @property
    def is_caught(self) -> bool:
        """Whether a test has failed: neither a hang nor a test that could not be run is proof enough."""
        return bool(self.failures)


def copy_code(to: Path) -> None:
    """Copy what tests need into the directory *to*."""
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, to / name)


def mutate(copy: Path, mutation: Mutation) -> None:
    """Apply *mutation* to the code in the directory *copy*."""
    for path, text in mutation.mutants(copy).items():
        (copy / path).write_text(text, encoding="utf-8")


def try_tests(copy: Path, tests: Sequence[str], timeout: float, *, all_of_them: bool = False) -> Trial:
    """Run *tests* on the code in the directory *copy*, up to the first failure; kill them after *timeout* seconds."""
    command = [sys.executable, "-m", "pytest", *_OPTIONS, "-o", f"faulthandler_timeout={timeout + 60}"]
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, *([] if all_of_them else ["-x"]), *tests],
        cwd=copy,
        # Not how whoever runs this wants tests to be run, which may need plugins.
        env={**os.environ, "PYTHONPATH": str(copy), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    hung = False
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        hung = True
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    failures = re.findall(r"^FAILED (.*)$", output, re.MULTILINE) if process.returncode == _EXIT_FAILED else []
    return Trial(
        passed=process.returncode == 0 and not re.search("^SKIPPED ", output, re.MULTILINE),
        failures=tuple(failures),
        seconds=time.monotonic() - began,
        hung=hung,
        output=output,
    )
