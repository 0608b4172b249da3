"""What counts as caught, and what does not: trials on small copies."""

import shutil
from pathlib import Path

import pytest

from tests.mutations import this_copy
from tests.mutations.trial import Trial, try_tests

TEST = "tests/test_it.py::test_it"


def trial_of(copy: Path, code: str, *, packages: tuple[str, ...] = ("jobqueue", "jobqueue_pg")) -> Trial:
    """Try a test of this *code* on a copy of next to nothing."""
    (copy / "tests" / "mutations").mkdir(parents=True)
    shutil.copy(str(this_copy.__file__), copy / "tests" / "mutations")
    (copy / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = ['--import-mode=importlib', '-ra']\n")
    (copy / "tests" / "test_it.py").write_text(f"import pytest\n\n{code}\n")
    for package in packages:
        (copy / package).mkdir()
        (copy / package / "__init__.py").touch()
    return try_tests(copy, [TEST], timeout=60)


@pytest.mark.parametrize(
    ("code", "failures"),
    [
        ("def test_it(): assert not 'this'", (f"{TEST} - AssertionError: assert not 'this'",)),
        ("def test_it(): pytest.skip('not here')", ()),
        ("def test_it(unknown): pass", ()),
    ],
    ids=["fails", "is skipped", "has no fixture"],
)
def test_only_a_test_that_fails_has_caught_anything(tmp_path: Path, code: str, failures: tuple[str, ...]):
    """A test that is skipped, or cannot be run, has neither passed nor failed."""
    trial = trial_of(tmp_path, code)
    assert (trial.passed, trial.failures, trial.hung) == (False, failures, False)
    assert trial.is_caught == bool(failures)


def test_nothing_but_the_copy_is_tested(tmp_path: Path):
    """Where a copy lacks a package, the one that is installed is not tested in its place."""
    trial = trial_of(tmp_path, "def test_it(): assert False", packages=())
    assert "would be tested, and not the copy" in trial.output
    assert (trial.passed, trial.is_caught) == (False, False)
