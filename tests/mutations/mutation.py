"""Mutations: patches that take one mechanism out, each with what that is, and the tests that must notice."""

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import attrs

PATCHES: Final = Path(__file__).parent / "patches"
CAUGHT_BY: Final = "Caught-by: "


class PatchError(Exception):
    """A patch is not what it should be, or does not fit the code any more."""


@attrs.frozen
class Hunk:
    """Lines of one file, and what they become."""

    path: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    def apply(self, lines: Sequence[str]) -> list[str]:
        """Return *lines* with the change made, for which the lines before it must be there exactly once."""
        size = len(self.before)
        found = [n for n in range(len(lines) - size + 1) if tuple(lines[n : n + size]) == self.before]
        if len(found) != 1:
            raise PatchError(f"what it replaces is there {len(found)} times in {self.path}, and not once")
        return [*lines[: found[0]], *self.after, *lines[found[0] + size :]]


@attrs.frozen
class Mutation:
    """One mechanism, and how the code is without it."""

    name: str
    why: str
    tests: tuple[str, ...]
    hunks: tuple[Hunk, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that it changes."""
        return tuple(dict.fromkeys(hunk.path for hunk in self.hunks))

    def mutants(self, root: Path) -> dict[str, str]:
        """Return the mutated texts of the files below *root*, by their paths.

        Raises:
            PatchError: the patch does not fit them.
        """
        texts: dict[str, list[str]] = {}
        for hunk in self.hunks:
            if hunk.path not in texts and not (root / hunk.path).is_file():
                raise PatchError(f"{self.name}.patch: there is no {hunk.path}")
            lines = texts.get(hunk.path) or (root / hunk.path).read_text(encoding="utf-8").split("\n")
            try:
                texts[hunk.path] = hunk.apply(lines)
            except PatchError as error:
                raise PatchError(f"{self.name}.patch does not fit: {error}") from None
        return {path: "\n".join(lines) for path, lines in texts.items()}


def read_mutations(directory: Path = PATCHES) -> list[Mutation]:
    """Read all patches, in the order of their names."""
    return [_read(path) for path in sorted(directory.glob("*.patch"))]


def missing_tests(mutation: Mutation, root: Path) -> list[str]:
    """Return those of the named tests that are not there."""
    return [test for test in mutation.tests if not _is_there(test, root)]


def _is_there(test: str, root: Path) -> bool:
    path, _, name = test.partition("::")
    return name.partition("[")[0] in _functions_of(root / path)


@cache
def _functions_of(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    code = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in code.body if isinstance(node, ast.FunctionDef))


def _read(path: Path) -> Mutation:
    heading, dashes, diff = path.read_text(encoding="utf-8").partition("--- ")
    why, _, names = heading.partition(CAUGHT_BY)
    tests = tuple(line.removeprefix(CAUGHT_BY).strip() for line in names.splitlines() if line.strip())
    if not (dashes and why.strip() and tests):
        raise PatchError(f"{path.name} needs, before its diff, what the mechanism is, and a line {CAUGHT_BY!r}")
    hunks = tuple(_hunks(path.name, (dashes + diff).removesuffix("\n").split("\n")))
    return Mutation(path.stem, " ".join(why.split()), tests, hunks)


def _hunks(name: str, lines: Sequence[str]) -> Iterator[Hunk]:
    """Read a unified diff. Numbers of lines are not heeded: they change whenever something else does."""
    file, before, after = "", list[str](), list[str]()
    for line in [*lines, "@@"]:
        match line[:1]:
            case "@" | "-" | "+" if line.startswith(("@@", "--- a/", "+++ b/")):
                if before:
                    yield Hunk(file, tuple(before), tuple(after))
                before, after = [], []
                file = line.removeprefix("+++ b/") if line.startswith("+++ b/") else file
            case "-":
                before.append(line[1:])
            case "+":
                after.append(line[1:])
            case " " | "":
                before.append(line[1:])
                after.append(line[1:])
            case _:
                raise PatchError(f"{name} has a line that belongs into no diff: {line!r}")
