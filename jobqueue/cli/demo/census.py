"""The work itself: what is in a Python source file, and in many of them. Knows nothing of queues."""

import ast
import hashlib
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

_NOT_THE_LIBRARY: Final = frozenset({"site-packages", "dist-packages"})
_DEFINITIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Where statements hold others; no expression holds a definition.
_BLOCKS: Final = ("body", "handlers", "orelse", "finalbody", "cases")


@attrs.frozen(kw_only=True)
class Census:
    """What is in one file."""

    lines: int
    words: int
    definitions: int
    """Functions and classes, at any depth; 0 when the file does not parse."""
    bytes: int
    sha256: str
    problem: str | None = None
    """Why the file does not parse, as some test data of the library are meant not to."""


@attrs.frozen(kw_only=True)
class Totals:
    """What is in many files."""

    files: int
    unparsable: int
    lines: int
    words: int
    definitions: int
    bytes: int
    digest: str
    """SHA-256 over the sorted hashes of the files, a line each."""


def source_files(root: Path | None = None) -> list[Path]:
    """List the ``.py`` files below *root*, sorted; None is the standard library of the Python that runs."""
    library = Path(sysconfig.get_path("stdlib")) if root is None else root
    paths = (path for path in library.rglob("*.py") if path.is_file())
    return sorted(path for path in paths if _NOT_THE_LIBRARY.isdisjoint(path.relative_to(library).parts))


def take_census(path: Path) -> Census:
    """Read a file and count. That it does not parse is a result like any other.

    Raises:
        OSError: it cannot be read.
    """
    source = path.read_bytes()
    problem = None
    definitions = 0
    try:
        definitions = _count_definitions(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # all of them raised by the parser
        problem = f"does not parse: {type(error).__name__}"
    return Census(
        lines=len(source.splitlines()),
        words=len(source.split()),
        definitions=definitions,
        bytes=len(source),
        sha256=hashlib.sha256(source).hexdigest(),
        problem=problem,
    )


def total_of(censuses: Iterable[Census]) -> Totals:
    """Add up, in whatever order they come."""
    counted = list(censuses)
    hashes = sorted(census.sha256 for census in counted)
    return Totals(
        files=len(counted),
        unparsable=sum(census.problem is not None for census in counted),
        lines=sum(census.lines for census in counted),
        words=sum(census.words for census in counted),
        definitions=sum(census.definitions for census in counted),
        bytes=sum(census.bytes for census in counted),
        digest=hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
    )


def _count_definitions(tree: ast.AST) -> int:
    number = 0
    pending = [tree]
    while pending:
        node = pending.pop()
        number += isinstance(node, _DEFINITIONS)
        for block in _BLOCKS:
            pending.extend(getattr(node, block, ()))
    return number
