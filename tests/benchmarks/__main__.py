"""Measure the library beside bare psycopg, and beside other libraries where these are installed.

    python -m tests.benchmarks [ROW...] [--rounds 5] [--jobs 20000] [--json FILE] [--quick]

A row is a family of works, all of which are done once in each round, in an order that changes; what is shown are
medians over the rounds, and how far the rounds differ. It starts a PostgreSQL server of its own, with fsync on; with
JOBQUEUE_TEST_DSN it uses that one. Progress goes to the standard error, the table to the standard output.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from tests.benchmarks import machine
from tests.benchmarks.race import Race, installed_peers
from tests.benchmarks.rows.catalog import ROWS
from tests.benchmarks.rows.scale import QUICK, Scale
from tests.benchmarks.server import running
from tests.benchmarks.table import Result, json_of, result_of, table_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line names; return 0, whatever the figures are, unless some could not be taken."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser.error(f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    scale = QUICK if options.quick else Scale()
    if options.jobs is not None:
        scale = attrs.evolve(scale, jobs=options.jobs)
    rounds = options.rounds or (3 if options.quick else 5)
    began_at = time.monotonic()
    with running() as server:
        peers = installed_peers(options.peers_python)
        race = Race(server=server, rounds=rounds, peers=peers, peers_python=options.peers_python, say=_say)
        described = {**machine.description(server), "peers": peers, "rounds": rounds}
        _say(machine.text_of(described))
        results: list[Result] = []
        for row in [ROWS[name](scale) for name in options.rows or ROWS]:
            answers = race.run(row)
            found = [result for line in row.lines if (result := result_of(line, answers)) is not None]
            _say(table_of(found))
            results += found
    described["seconds"] = round(time.monotonic() - began_at)
    parts = [f"{machine.text_of(described)}\nrounds      {rounds}", table_of(results), *race.failures]
    sys.stdout.write("\n\n".join(parts) + "\n")
    if options.json is not None:
        options.json.write_text(_as_json(described, results), encoding="utf-8")
    return 1 if race.failures else 0


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
