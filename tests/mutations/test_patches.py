"""Every mutation fits the code, and names tests that are there; what they notice is tried by `tox -e mutations`."""

from pathlib import Path

import pytest

from tests.mutations.mutation import Hunk, Mutation, PatchError, missing_tests, read_mutations
from tests.mutations.trial import ROOT

MUTATIONS = read_mutations()


def test_there_are_mutations():
    """The patches are where they are looked for."""
    assert len(MUTATIONS) > 50


def test_patches_fit():
    """What a patch replaces is there exactly once; what comes out is another text, and Python if it was."""
    for mutation in MUTATIONS:
        for path, text in mutation.mutants(ROOT).items():
            assert text != (ROOT / path).read_text(encoding="utf-8"), mutation.name
            if path.endswith(".py"):
                compile(text, f"{mutation.name}.patch", "exec")


def test_patches_name_tests():
    """The tests that are to notice a mutation are there, and are not what it changes."""
    assert [test for mutation in MUTATIONS for test in missing_tests(mutation, ROOT)] == []
    assert [mutation.name for mutation in MUTATIONS if any(path.startswith("tests/") for path in mutation.paths)] == []


def test_a_patch_that_does_not_fit(tmp_path: Path):
    """What is not there, or twice, is an error that names the patch and the file."""
    (tmp_path / "code.py").write_text("one\ntwo\none\n")
    for before in ("one", "three"):
        mutation = Mutation("name", "why", ("test",), (Hunk("code.py", (before,), ("four",)),))
        with pytest.raises(PatchError, match=r"name\.patch does not fit: .* in code\.py"):
            mutation.mutants(tmp_path)


def test_a_patch_changes_its_lines_and_no_others(tmp_path: Path):
    """Several hunks change several places, and everything else stays, the end of the file too."""
    (tmp_path / "code.py").write_text("one\ntwo\n\nthree\n")
    hunks = (Hunk("code.py", ("one", "two"), ("two",)), Hunk("code.py", ("three",), ("four", "five")))
    assert Mutation("name", "why", ("test",), hunks).mutants(tmp_path) == {"code.py": "two\n\nfour\nfive\n"}


def test_a_patch_needs_a_heading(tmp_path: Path):
    """A patch that does not say what it is for, or what catches it, is an error that names it."""
    for heading in ("", "why\n", "Caught-by: tests/x.py::test_x\n"):
        (tmp_path / "bare.patch").write_text(f"{heading}--- a/code.py\n+++ b/code.py\n@@ -1 +1 @@\n-one\n+two\n")
        with pytest.raises(PatchError, match=r"bare\.patch"):
            read_mutations(tmp_path)
