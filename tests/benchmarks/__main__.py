"""Measure the library beside bare psycopg, and beside other libraries where these are installed.

    python -m tests.benchmarks [ROW...] [--rounds 5] [--jobs 20000] [--json FILE] [--quick]

A row is a family of works, all of which are done once in each round, in an order that changes; what is shown are
medians over the rounds, and how far the rounds differ. One round before them does not count, unless the works are long
or --quick is given. It starts a PostgreSQL server of its own, with fsync on; with JOBQUEUE_TEST_DSN it uses that one.
Progress goes to the standard error, the table to the standard output.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import attrs

from tests.benchmarks import machine
from tests.benchmarks.race import ROUNDS, Race, Row, installed_peers
from tests.benchmarks.rows.catalog import ROWS
from tests.benchmarks.rows.scale import QUICK, Scale
from tests.benchmarks.server import NotDurableError, Server, running
from tests.benchmarks.table import LEGEND, Answers, Result, json_of, result_of, table_of

_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line names; return 0, whatever the figures are, unless some could not be taken."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if refusal := next(_refusals(options), None):
        parser.error(refusal)
    try:
        with ExitStack() as stack:
            try:
                server = stack.enter_context(running())
            except NotDurableError as error:
                parser.error(str(error))
            return _measure(options, server)
    except KeyboardInterrupt:  # before there was anything to show
        return _INTERRUPTED


def _refusals(options: argparse.Namespace) -> Iterator[str]:
    """Say what of the command line cannot be done."""
    if unknown := [name for name in options.rows if name not in ROWS]:
        yield f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}"
    for name in ("rounds", "jobs"):
        if (number := getattr(options, name)) is not None and number < 1:
            yield f"--{name} is at least 1, not {number}"
    file = options.json
    if file is not None and (file.is_dir() or not file.parent.is_dir()):
        yield f"--json: {file} is no file, and cannot become one"
    try:
        subprocess.run([options.peers_python, "-c", ""], check=True)
    except (OSError, subprocess.SubprocessError) as error:
        yield f"--peers-python cannot be run: {error}"


def _measure(options: argparse.Namespace, server: Server) -> int:
    """Run the rows, and show what they have come to, even when that is interrupted; return the exit status."""
    scale = QUICK if options.quick else Scale()
    if options.jobs is not None:
        scale = attrs.evolve(scale, jobs=options.jobs)
    rounds = options.rounds or (3 if options.quick else ROUNDS)
    began_at = time.monotonic()
    peers = installed_peers(options.peers_python)
    race = Race(
        server=server,
        rounds=rounds,
        peers=peers,
        peers_python=options.peers_python,
        say=_say,
        warms_up=not options.quick,
    )
    described = {**machine.description(server), "peers": peers, "rounds": rounds}
    _say(machine.text_of(described))
    measured = dict[str, Sequence[Result]]()
    try:
        for name in options.rows or ROWS:
            row = ROWS[name](scale)
            for answers in race.run(row):
                measured[name] = _results(row, answers, is_quick=options.quick)
            _say(table_of(measured[name]))
    except KeyboardInterrupt:
        described["interrupted"] = True
    described["seconds"] = round(time.monotonic() - began_at)
    results = [result for of_row in measured.values() for result in of_row]
    parts = [f"{machine.text_of(described)}\nrounds      {rounds}", f"{table_of(results)}\n\n{LEGEND}", *race.failures]
    if "interrupted" in described:
        parts.append("interrupted: what is missing was not measured")
    sys.stdout.write("\n\n".join(parts) + "\n")
    if options.json is not None:
        options.json.write_text(_as_json(described, results), encoding="utf-8")
    return _INTERRUPTED if "interrupted" in described else int(bool(race.failures))


def _results(row: Row, answers: Answers, *, is_quick: bool) -> Sequence[Result]:
    rounds = 0 if is_quick else max(map(len, answers.values()), default=0)
    found = (result_of(line, answers) for line in row.judged_after(rounds))
    return [result for result in found if result is not None]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; all of them unless one is named")
    parser.add_argument("--rounds", type=int, help="how often everything is done (5; with --quick 3)")
    parser.add_argument("--jobs", type=int, help="how many jobs a drain has (20000; with --quick 4000)")
    parser.add_argument("--json", type=Path, help="a file for the machine, the table and the figures of each round")
    parser.add_argument("--quick", action="store_true", help="small works and few rounds: to see that everything runs")
    parser.add_argument("--peers-python", default=sys.executable, help="the interpreter that has the peers installed")
    return parser


def _as_json(described: dict[str, Any], results: Sequence[Result]) -> str:
    return json.dumps({"machine": described, "table": [json_of(result) for result in results]}, indent=2)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
