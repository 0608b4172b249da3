"""Contestants, run in rounds: in each of them everybody once, and each time somebody else begins."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import attrs

from tests.benchmarks.server import Server
from tests.benchmarks.table import Answers, Line

PEERS: Final = ("pgqueuer", "procrastinate", "oban", "chancy")

ROUNDS: Final = 5
"""How many rounds tell whether a target is met, unless a row says otherwise."""

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

    def judged_after(self, rounds: int) -> Sequence[Line]:
        """Return the lines, without their targets where so few rounds cannot tell whether these are met."""
        if rounds >= (self.rounds_enough or ROUNDS):
            return self.lines
        return [attrs.evolve(line, target=None) for line in self.lines]


@attrs.frozen(kw_only=True)
class Race:
    """How rows are run."""

    server: Server
    rounds: int
    peers: Mapping[str, str]
    """The other libraries that are there, and their versions."""
    peers_python: str
    say: Callable[[str], None]
    warms_up: bool = True
    """Whether the short works are done once before they count: what runs first finds nothing in any cache."""
    failures: list[str] = attrs.field(factory=list[str])
    """What contestants could not do, in the end."""

    def run(self, row: Row) -> Iterator[Answers]:
        """Run the contestants of *row*; after each round that counts, yield what they have answered so far."""
        present = [each for each in row.contestants if each.peer is None or each.peer in self.peers]
        answers: dict[str, list[Mapping[str, Any]]] = {each.name: [] for each in present}
        rounds = min(self.rounds, row.rounds_enough or self.rounds)
        uncounted = 1 if self.warms_up and row.rounds_enough is None else 0
        with ExitStack() as stack:
            stages = {name: stack.enter_context(self.server.fresh_database()) for name in row.stages}
            for name, options in row.stages.items():
                self.say(f"{row.name}: makes the scene {name}")
                self._answer(Contestant(name, "contestants.scenes", name, options), stages[name])
            for number in range(uncounted + rounds):
                first = number % len(present)
                said = f"round {number - uncounted + 1} of {rounds}" if number >= uncounted else "warm-up"
                for contestant in present[first:] + present[:first]:
                    if len(answers[contestant.name]) == number:  # it has not failed
                        answers[contestant.name] += self._run_one(f"{row.name}, {said}", contestant, stages)
                if number >= uncounted:
                    yield {name: given[uncounted:] for name, given in answers.items() if len(given) == number + 1}

    def _run_one(self, where: str, contestant: Contestant, stages: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
        began_at = time.monotonic()
        try:
            if contestant.stage is not None:
                answer = self._answer(contestant, stages[contestant.stage])
            else:
                with self.server.fresh_database() as dsn:
                    answer = self._answer(contestant, dsn)
        except (subprocess.SubprocessError, ValueError) as error:
            self.failures.append(f"{where}: {contestant.name} failed, and is left out: {error}")
            self.say(self.failures[-1])
            return []
        shown = ", ".join(f"{key} {value:.4g}" for key, value in answer.items() if isinstance(value, int | float))
        seconds = time.monotonic() - began_at
        self.say(f"{where}: {contestant.name}: {shown} ({seconds:.1f} s)")
        return [answer]

    def _answer(self, contestant: Contestant, dsn: str) -> Mapping[str, Any]:
        python = sys.executable if contestant.peer is None else self.peers_python
        answer: Mapping[str, Any] = json.loads(_output_of(contestant.command(python, dsn)).splitlines()[-1])
        return answer


def _output_of(command: Sequence[str]) -> str:
    """Run *command* in a process group of its own, which is killed when this is interrupted, or waits in vain."""
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        try:
            output, _ = process.communicate(timeout=_PATIENCE)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return output


def installed_peers(python: str) -> dict[str, str]:
    """Return the versions of those of the peers that the interpreter *python* has."""
    found: dict[str, str] = {}
    for name in PEERS:
        look = f"import tests.benchmarks.peers.{name} as peer; print(peer.version() if peer.is_installed() else '')"
        done = subprocess.run([python, "-c", look], cwd=_ROOT, capture_output=True, text=True, check=False)
        if version := done.stdout.strip():
            found[name] = version
    return found
