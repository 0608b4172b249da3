"""Contestants, run in rounds: in each of them everybody once, and each time somebody else begins."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import attrs

from tests.benchmarks.server import Server
from tests.benchmarks.table import Answers, Line

PEERS: Final = ("pgqueuer", "procrastinate", "oban", "chancy")

_ROOT: Final = Path(__file__).parents[2]
_PATIENCE: Final = 900.0


@attrs.frozen
class Contestant:
    """A program and what it is told; see contract.py."""

    name: str
    module: str
    """Below tests.benchmarks."""
    work: str
    options: Mapping[str, object] = attrs.field(factory=dict[str, object])
    """Of the command line; True stands for an option without a value, None for one that is not given."""
    stage: str | None = None
    """The name of a database that is made once, before the first round; None: a new one each time."""

    @property
    def peer(self) -> str | None:
        """The name of the other library that it is, if it is one."""
        package, _, name = self.module.partition(".")
        return name if package == "peers" else None

    def command(self, python: str, dsn: str) -> list[str]:
        """Return how to run it."""
        words = [python, "-m", f"tests.benchmarks.{self.module}", self.work, dsn]
        for name, value in self.options.items():
            if value is not None and value is not False:
                words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return words


@attrs.frozen(kw_only=True)
class Row:
    """A family of works that are measured in the same rounds, and the lines that they give."""

    name: str
    contestants: Sequence[Contestant]
    lines: Sequence[Line]
    stages: Mapping[str, Mapping[str, object]] = attrs.field(factory=dict[str, Mapping[str, object]])
    """The databases that are made once: what the scene builder is told for each."""
    rounds_enough: int | None = None
    """How many rounds are enough of works that take long, and are measured by their length."""


@attrs.frozen(kw_only=True)
class Race:
    """How rows are run."""

    server: Server
    rounds: int
    peers: Mapping[str, str]
    """The other libraries that are there, and their versions."""
    peers_python: str
    say: Callable[[str], None]
    failures: list[str] = attrs.field(factory=list[str])
    """What contestants could not do, in the end."""

    def run(self, row: Row) -> Answers:
        """Return what the contestants of *row* have answered."""
        present = [each for each in row.contestants if each.peer is None or each.peer in self.peers]
        answers: dict[str, list[Mapping[str, Any]]] = {each.name: [] for each in present}
        rounds = min(self.rounds, row.rounds_enough or self.rounds)
        with ExitStack() as stack:
            stages = {name: stack.enter_context(self.server.fresh_database()) for name in row.stages}
            for name, options in row.stages.items():
                self.say(f"{row.name}: makes the scene {name}")
                self._answer(Contestant(name, "contestants.scenes", name, options), stages[name])
            for number in range(rounds):
                first = number % len(present)
                for contestant in present[first:] + present[:first]:
                    self._run_one(row, number, contestant, stages, answers)
        return {name: given for name, given in answers.items() if len(given) == rounds}

    def _run_one(
        self,
        row: Row,
        number: int,
        contestant: Contestant,
        stages: Mapping[str, str],
        answers: dict[str, list[Mapping[str, Any]]],
    ) -> None:
        began_at = time.monotonic()
        try:
            if contestant.stage is not None:
                answer = self._answer(contestant, stages[contestant.stage])
            else:
                with self.server.fresh_database() as dsn:
                    answer = self._answer(contestant, dsn)
        except (subprocess.SubprocessError, ValueError) as error:
            self.failures.append(
                f"{row.name}: {contestant.name} failed in round {number + 1}, and is left out: {error}"
            )
            self.say(self.failures[-1])
            return
        answers[contestant.name].append(answer)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in answer.items() if isinstance(value, int | float))
        seconds = time.monotonic() - began_at
        self.say(f"{row.name}, round {number + 1} of {self.rounds}: {contestant.name}: {shown} ({seconds:.1f} s)")

    def _answer(self, contestant: Contestant, dsn: str) -> Mapping[str, Any]:
        python = sys.executable if contestant.peer is None else self.peers_python
        command = contestant.command(python, dsn)
        done = subprocess.run(
            command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, stderr=None, text=True, timeout=_PATIENCE
        )
        answer: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer


def installed_peers(python: str) -> dict[str, str]:
    """Return the versions of those of the peers that the interpreter *python* has."""
    found: dict[str, str] = {}
    for name in PEERS:
        look = f"import tests.benchmarks.peers.{name} as peer; print(peer.version() if peer.is_installed() else '')"
        done = subprocess.run([python, "-c", look], cwd=_ROOT, capture_output=True, text=True, check=False)
        if version := done.stdout.strip():
            found[name] = version
    return found
