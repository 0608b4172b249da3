"""Show that each mechanism is held by a test: take it out, and see the test fail.

    python -m tests.mutations [--jobs N] [NAME...]

Each patch in tests/mutations/patches takes one mechanism out, and names the tests that must notice. These are run on a
copy of the code as it is, where they must pass, then for each patch on a copy that has it, where one of them must fail.
"""

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from tests.mutations.mutation import Mutation, PatchError, missing_tests, read_mutations
from tests.mutations.trial import Trial, copy_code, mutate, try_tests

_SECONDS_PER_MUTATION: Final = 180.0
_SECONDS_UNCHANGED: Final = 1200.0
_SHOWN: Final = 150
_printing: Final = threading.Lock()

_T = TypeVar("_T")
_R = TypeVar("_R")


def main(arguments: Sequence[str] | None = None) -> int:
    """Try mutations; return 0 when all of them were caught."""
    options = _parser().parse_args(arguments)
    known = {mutation.name: mutation for mutation in read_mutations()}
    names = [name.removesuffix(".patch") for name in options.names] or list(known)
    if unknown := [name for name in names if name not in known]:
        _say(f"there is no mutation {', '.join(unknown)}")
        return 2
    mutations = [known[name] for name in names]
    with tempfile.TemporaryDirectory(prefix="jobqueue-mutations-") as directory:
        unchanged = Path(directory) / "unchanged"
        unchanged.mkdir()
        copy_code(unchanged)
        if not (_all_fit(mutations, unchanged) and _all_pass(mutations, unchanged, options.jobs)):
            return 1
        began = time.monotonic()
        caught = _do_all(partial(_is_caught, unchanged), mutations, options.jobs)
    survivors = [mutation.name for mutation, is_caught in zip(mutations, caught, strict=True) if not is_caught]
    _say(f"{sum(caught)} of {len(caught)} mutations were caught, in {time.monotonic() - began:.0f} s")
    if survivors:
        _say(f"these survived: {', '.join(survivors)}")
    return 1 if survivors else 0


def _do_all(act: Callable[[_T], _R], things: Sequence[_T], at_once: int) -> list[_R]:
    with ThreadPoolExecutor(at_once) as executor:
        try:
            return list(executor.map(act, things))
        except BaseException:  # as Ctrl-C: what has not begun does not begin any more
            executor.shutdown(cancel_futures=True)
            raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="a mutation; all of them unless one is named")
    usual = (os.cpu_count() or 1) + 1  # tests wait a lot
    parser.add_argument("--jobs", type=int, default=usual, help=f"how many at once (here: {usual})")
    return parser


def _all_fit(mutations: Sequence[Mutation], copy: Path) -> bool:
    fit = True
    for mutation in mutations:
        try:
            mutation.mutants(copy)
        except PatchError as error:
            _say(str(error))
            fit = False
        for test in missing_tests(mutation, copy):
            _say(f"{mutation.name}.patch names a test that is not there: {test}")
            fit = False
    return fit


def _all_pass(mutations: Sequence[Mutation], copy: Path, jobs: int) -> bool:
    """Run all tests on the code as it is: a test that fails anyway notices nothing."""
    tests = list(dict.fromkeys(test for mutation in mutations for test in mutation.tests))
    shares = [share for number in range(jobs) if (share := tests[number::jobs])]
    trials = _do_all(lambda share: try_tests(copy, share, _SECONDS_UNCHANGED, all_of_them=True), shares, jobs)
    for trial in trials:
        if not trial.passed:
            _say(trial.output)
    if not all(trial.passed for trial in trials):
        _say("named tests fail, or are skipped, although nothing is changed: so they prove nothing")
        return False
    _say(f"unchanged  {max(trial.seconds for trial in trials):6.1f} s  all {len(tests)} named tests pass")
    return True


def _is_caught(unchanged: Path, mutation: Mutation) -> bool:
    copy = unchanged.parent / mutation.name
    shutil.copytree(unchanged, copy)
    mutate(copy, mutation)
    try:
        trial = try_tests(copy, mutation.tests, _SECONDS_PER_MUTATION)
    finally:
        shutil.rmtree(copy)
    verdict = "caught" if trial.is_caught else "SURVIVED"
    _say(f"{verdict:9}  {trial.seconds:6.1f} s  {mutation.name}: {_how(trial)}")
    if not (trial.is_caught or trial.passed):
        _say(trial.output)
    return trial.is_caught


def _how(trial: Trial) -> str:
    if trial.failures:
        return trial.failures[0][:_SHOWN]
    if trial.hung:
        return "its tests hang, which proves nothing"
    return "its tests pass" if trial.passed else "its tests cannot be run"


def _say(text: str) -> None:
    with _printing:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
