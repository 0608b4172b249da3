"""The chaos run, for one minute: whatever fails, what was promised holds."""

import faulthandler
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.integration.chaos_parts.checker import INVARIANTS

ROOT = Path(__file__).resolve().parents[2]
LONGEST_RUN = 300
FAULTS = {
    "all networks cut",
    "answer to a commit cut off",
    "bundles locked",
    "connections cut and refused",
    "network cut",
    "network delayed",
    "network frozen",
    "network halved",
    "server stopped (fast) and started",
    "server stopped (immediate) and started",
    "server stopped (smart) and started",
    "session killed, server recovers",
    "sessions terminated",
    "worker frozen past dead_for",
    "worker killed",
    "worker replaced",
}


def chaos(directory: Path, *options: str) -> tuple[int, str]:
    """Run it with *directory* for its files; return its exit status and what it printed."""
    # It ends by itself; but not as soon as pytest would have it.
    faulthandler.cancel_dump_traceback_later()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.chaos", *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=LONGEST_RUN)
    except BaseException:
        # The whole session: one of its processes may be frozen, and would not notice that its parent is gone.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, said


def numbers(said: str) -> dict[str, list[int]]:
    """Return what the tables say."""
    rows = re.findall(r"^  (\S.*?) +(\d+)(?: +(\d+))?$", said, re.MULTILINE)
    return {name: [int(value) for value in values if value] for name, *values in rows}


def test_one_minute_of_chaos(tmp_path):
    """With faults of every kind, all invariants hold, of which each has looked at something; and nothing is left."""
    status, said = chaos(tmp_path, "--minutes", "1", "--seed", "7", "--workers", "3")
    assert status == 0, said
    found = numbers(said)
    assert found.keys() >= FAULTS
    assert sum(found[fault][0] for fault in FAULTS) >= 20
    assert {name: found[name][1] for name in INVARIANTS} == dict.fromkeys(INVARIANTS, 0)
    assert [name for name in INVARIANTS if found[name][0] == 0] == []
    assert "seed 7" in said
    assert list(tmp_path.iterdir()) == []
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in processes
