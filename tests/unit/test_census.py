"""Counting what is in source files, without any queue."""

import ast
import hashlib
import inspect
import random
from pathlib import Path

import pytest

from jobqueue.cli.demo.census import source_files, take_census, total_of

SOURCE = '''\
import os


class Outer:
    """Words in a docstring count, too."""

    def method(self):
        if os.name:
            try:
                async def inner(): ...
            except OSError:
                def in_handler(): ...
            else:
                class InElse: ...
            finally:
                for _ in ():
                    def in_loop(): ...
                else:
                    def in_loop_else(): ...
        match self:
            case 1:
                with self:
                    def in_case(): ...
        return lambda: 0
'''


def write(path: Path, source: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(source.encode() if isinstance(source, str) else source)
    return path


def test_counts_lines_words_definitions_and_bytes(tmp_path):
    """Functions and classes count wherever a statement may stand; lambdas do not."""
    found = take_census(write(tmp_path / "a.py", SOURCE))
    assert (found.lines, found.words) == (len(SOURCE.splitlines()), len(SOURCE.split()))
    assert found.definitions == 8
    assert found.bytes == len(SOURCE)
    assert found.sha256 == hashlib.sha256(SOURCE.encode()).hexdigest()
    assert found.problem is None


def test_an_empty_file(tmp_path):
    """There is nothing in an empty file, and it parses."""
    found = take_census(write(tmp_path / "empty.py", ""))
    assert (found.lines, found.words, found.definitions, found.bytes, found.problem) == (0, 0, 0, 0, None)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(b"def f(:\n    pass\n", id="syntax"),
        pytest.param(b"x = '\0'\n", id="NUL"),
        pytest.param(b"x = '\xff'\n", id="not UTF-8"),
        pytest.param(b"# coding: no-such-codec\n", id="unknown coding"),
        pytest.param(b"(" * 300 + b")" * 300, id="too deep"),
    ],
)
def test_a_file_that_does_not_parse_is_counted_all_the_same(tmp_path, source):
    """What does not parse has lines, words, bytes and a hash, no definitions, and says so."""
    found = take_census(write(tmp_path / "bad.py", source))
    assert (found.lines, found.words) == (len(source.splitlines()), len(source.split()))
    assert (found.bytes, found.sha256) == (len(source), hashlib.sha256(source).hexdigest())
    assert found.definitions == 0
    assert (found.problem or "").startswith("does not parse: ")


def test_the_coding_line_is_heeded(tmp_path):
    """A file in another coding than UTF-8 parses when it says so."""
    source = "# coding: latin-1\ndef café(): ...\n".encode("latin-1")
    assert take_census(write(tmp_path / "latin.py", source)).definitions == 1


def test_a_missing_file_is_an_error(tmp_path):
    """What cannot be read is no result."""
    with pytest.raises(FileNotFoundError):
        take_census(tmp_path / "none.py")


def test_totals_do_not_depend_on_the_order(tmp_path):
    """Totals add up, and their digest is over the sorted hashes."""
    censuses = [take_census(write(tmp_path / f"{number}.py", f"x = {number}\n")) for number in range(10)]
    censuses.append(take_census(write(tmp_path / "bad.py", "def")))
    totals = total_of(censuses)
    hashes = "\n".join(sorted(each.sha256 for each in censuses))
    assert totals.digest == hashlib.sha256(hashes.encode()).hexdigest()
    assert (totals.files, totals.unparsable, totals.lines, totals.words) == (11, 1, 11, 31)
    assert totals.bytes == sum(each.bytes for each in censuses)
    random.shuffle(censuses)
    assert total_of(censuses) == totals


def test_totals_of_nothing():
    """Nothing adds up to nothing."""
    assert total_of([]).files == 0


def test_source_files_are_those_of_the_library_itself(tmp_path):
    """What others have installed below the library is not counted, nor anything but readable ``.py`` files."""
    wanted = [write(tmp_path / name, "") for name in ("a.py", "pkg/__init__.py", "pkg/b.py")]
    write(tmp_path / "site-packages" / "other.py", "")
    write(tmp_path / "lib" / "dist-packages" / "other.py", "")
    write(tmp_path / "pkg" / "data.txt", "")
    (tmp_path / "dangling.py").symlink_to(tmp_path / "nowhere")
    (tmp_path / "directory.py").mkdir()
    assert source_files(tmp_path) == wanted


def test_by_default_the_running_library_is_counted():
    """Without a root it is the standard library of the Python that runs."""
    files = source_files()
    assert Path(inspect.getfile(ast)) in files
    assert len(files) > 500
