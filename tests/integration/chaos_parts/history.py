"""All that was written down of a chaos run, as the checker sees it."""

import bisect
import enum
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import attrs

from tests.integration.chaos_parts.evidence import read_evidence
from tests.integration.chaos_parts.recorder import read_records

Row = Mapping[str, Any]


class Fate(enum.StrEnum):
    """What became of a transaction, as far as its client knows."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class Transaction:
    """What an enqueuer added together."""

    id: str
    jobs: tuple[str, ...]
    fate: Fate = Fate.UNKNOWN


@attrs.frozen(kw_only=True)
class Run:
    """One run of a handler; moments are of the monotonic clock. Of one that was killed, nobody has written the end."""

    job: str
    claim: str
    type: str
    pid: int
    began_at: float
    ended_at: float | None = None
    outcome: str | None = None
    is_lost: bool = False


@attrs.frozen(kw_only=True)
class Request:
    """Something that was asked of the queue about one job; *answer* None: nobody knows whether it was done."""

    act: str
    job: str
    answer: bool | None = None


@attrs.frozen(kw_only=True)
class Change:
    """A committed change of a row, with its moment by the monotonic clock and by that of the database."""

    seq: int
    at: float
    wall: float
    subject: str
    id: str
    before: Row
    after: Row


@attrs.frozen(kw_only=True)
class History:
    """What has happened, and what there is in the end."""

    transactions: Sequence[Transaction] = ()
    runs: Sequence[Run] = ()
    requests: Sequence[Request] = ()
    changes: Sequence[Change] = ()
    effects: Sequence[tuple[str, str]] = ()
    """Jobs and claims of what atomic handlers have written."""
    jobs: Mapping[str, Row] = attrs.field(factory=dict[str, Row])
    bundles: Mapping[str, Row] = attrs.field(factory=dict[str, Row])
    server_starts: Sequence[float] = ()
    """When the server was started, by the database's clock."""

    @classmethod
    def load(cls, directory: Path, conninfo: str) -> Self:
        """Read what processes have written into *directory*, and the database."""
        records = list(read_records(directory))
        rows = read_evidence(conninfo)
        clock = _Clock(records)
        return cls(
            transactions=_transactions(records),
            runs=_runs(records),
            requests=_requests(records),
            changes=[_change(row, clock) for row in rows["changes"]],
            effects=[(str(row["job_id"]), str(row["claim_id"])) for row in rows["effects"]],
            jobs={str(row["id"]): row for row in rows["jobs"]},
            bundles={str(row["id"]): row for row in rows["bundles"]},
            server_starts=[record["since"] for record in records if record["what"] == "server started"],
        )


class _Clock:
    """Tells the monotonic time of a moment that the database has written down, by the nearest record with both."""

    def __init__(self, records: Iterable[Row]) -> None:
        self._pairs = sorted((record["wall"], record["at"]) for record in records)

    def monotonic(self, wall: float) -> float:
        place = min(bisect.bisect(self._pairs, (wall, 0.0)), len(self._pairs) - 1)
        near_wall, near_at = self._pairs[place]
        return float(near_at + wall - near_wall)


def _change(row: Row, clock: _Clock) -> Change:
    wall = row["at"].timestamp()
    facts = {name: row[name] for name in ("seq", "subject", "before", "after")}
    return Change(id=str(row["id"]), at=clock.monotonic(wall), wall=wall, **facts)


def _transactions(records: Iterable[Row]) -> list[Transaction]:
    found: dict[str, Transaction] = {}
    for record in records:
        if record["what"] == "transaction began":
            found[record["transaction"]] = Transaction(id=record["transaction"], jobs=tuple(record["jobs"]))
        elif record["what"] == "transaction ended":
            id_ = record["transaction"]
            found[id_] = attrs.evolve(found[id_], fate=Fate(record["fate"]))
    return list(found.values())


def _runs(records: Iterable[Row]) -> list[Run]:
    found: list[Run] = []
    open_: dict[tuple[int, str, str], int] = {}
    for record in records:
        if record["what"] not in {"run began", "run ended"}:
            continue
        key = (record["pid"], record["job"], record["claim"])
        if record["what"] == "run began":
            open_[key] = len(found)
            facts = {name: record[name] for name in ("job", "claim", "type", "pid")}
            found.append(Run(began_at=record["at"], **facts))
        else:
            place = open_.pop(key)
            ended = {"ended_at": record["at"], "outcome": record["outcome"], "is_lost": record["is_lost"]}
            found[place] = attrs.evolve(found[place], **ended)
    return found


def _requests(records: Iterable[Row]) -> list[Request]:
    found: dict[str, Request] = {}
    for record in records:
        if record["what"] == "request began":
            found[record["request"]] = Request(act=record["act"], job=record["job"])
        elif record["what"] == "request ended":
            id_ = record["request"]
            found[id_] = attrs.evolve(found[id_], answer=record["answer"])
    return list(found.values())
