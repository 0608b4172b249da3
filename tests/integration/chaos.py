"""Run jobs while everything that they need fails again and again, and check what was promised.

    python -m tests.integration.chaos --minutes 20 --workers 3 [--seed 7]

It prints the faults, what was checked, and the seed; its exit status is 1 when something that was promised was broken,
and then the files of the run are kept. A seed gives the same faults and jobs again, though not at the same moments.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.fixtures.waiting import wait_until
from tests.integration.chaos_parts.checker import check
from tests.integration.chaos_parts.findings import Findings
from tests.integration.chaos_parts.injector import Injector
from tests.integration.chaos_parts.loading import load_history
from tests.integration.chaos_parts.report import report
from tests.integration.chaos_parts.scene import Scene

_LONGEST_DRAIN = 90.0
_UNFINISHED = "select count(*) from worker.job where stopped_at is null"


def main() -> int:
    """Run as the command line says; return the exit status."""
    options = _options()
    directory = Path(tempfile.mkdtemp(prefix="jobqueue-chaos-"))
    directory.chmod(0o755)  # the server may run as somebody else
    _say(f"chaos for {options.minutes:g} minutes, {options.workers} worker processes, seed {options.seed}")
    held = False
    try:
        held = run(directory, minutes=options.minutes, seed=options.seed, workers=options.workers)
    finally:
        verdict = "all invariants hold" if held else "something was broken"
        _say(f"\n{verdict} (seed {options.seed})")
        if held and not options.keep:
            shutil.rmtree(directory)
        else:
            _say(f"the files of the run are in {directory}")
    return 0 if held else 1


def run(directory: Path, *, minutes: float, seed: int, workers: int) -> bool:
    """Run in *directory*, and say what came of it; return whether all that was promised held."""
    with Scene(directory, seed=seed, workers=workers) as scene:
        injector = Injector(scene, seed)
        injector.run(minutes * 60)
        problems = _end(scene)
        history = load_history(directory, scene.conninfo)
    findings = check(history)
    for line in report(injector.counts, history, findings):
        _say(line)
    for problem in problems:
        _say(f"BROKEN: {problem}")
    return not problems and _hold(findings)


def _end(scene: Scene) -> list[str]:
    """Have everything come to its end, now that nothing fails any more; tell of what does not."""
    problems: list[str] = []
    with _timed("the enqueuers have ended"):
        if scene.traffic.finish() != 0:
            problems.append("the enqueuers did not end by themselves")
    with _timed("all jobs have come to their end"):
        try:
            wait_until(lambda: scene.ask(_UNFINISHED) == [(0,)], _LONGEST_DRAIN)
        except AssertionError:
            problems.append(f"jobs are left after {_LONGEST_DRAIN:g} s without faults: {scene.ask(_UNFINISHED)}")
    with _timed("the worker processes have ended"):
        statuses = {process.finish() for process in (scene.go, *scene.workers, *scene.retired)}
        if statuses != {0}:
            problems.append(f"worker processes did not end by themselves: {statuses}")
    return problems


@contextmanager
def _timed(fact: str) -> Iterator[None]:
    """Say how long it took until *fact* was true."""
    began_at = time.monotonic()
    yield
    _say(f"faults are over: {fact}, after {time.monotonic() - began_at:.1f} s")


def _hold(findings: Mapping[str, Findings]) -> bool:
    return not any(found.problems for found in findings.values())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1, help="how long there are faults")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--workers", type=int, default=3, help="how many worker processes")
    parser.add_argument("--keep", action="store_true", help="keep the files of the run in any case")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
