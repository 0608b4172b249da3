"""Reads what was written down of a chaos run."""

import bisect
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from tests.integration.chaos_parts.evidence import read_evidence
from tests.integration.chaos_parts.history import (
    Answer,
    Change,
    Fate,
    History,
    KeyedAdd,
    Request,
    Row,
    Run,
    Transaction,
)
from tests.integration.chaos_parts.recorder import read_records


def load_history(directory: Path, conninfo: str) -> History:
    """Read what processes have written into *directory*, and the database."""
    records = list(read_records(directory))
    rows = read_evidence(conninfo)
    clock = _Clock(records)
    changes = _with_last_runs([_change(row, clock) for row in rows["changes"]])
    gone = {change.id: change.before for change in changes if change.subject == "job delete"}
    gone_bundles = {change.id: change.before for change in changes if change.subject == "job_bundle delete"}
    return History(
        transactions=_transactions(records),
        runs=_runs(records),
        requests=_requests(records),
        changes=changes,
        effects=[(str(row["job_id"]), str(row["claim_id"])) for row in rows["effects"]],
        queue={str(row["id"]): row for row in rows["jobs"]},
        archive={str(row["id"]): {"claim_id": None, **gone.get(str(row["id"]), {}), **row} for row in rows["archive"]},
        bundles={**gone_bundles, **{str(row["id"]): row for row in rows["bundles"]}},
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
    facts = {name: row[name] for name in ("seq", "subject", "id", "before", "after")}
    return Change(
        at=clock.monotonic(wall),
        wall=wall,
        transaction=int(row["transaction"]),
        began=row["began_at"].timestamp(),
        committed=wall if row["committed_at"] is None else row["committed_at"].timestamp(),
        **facts,
    )


def _with_last_runs(changes: Sequence[Change]) -> list[Change]:
    """Show of jobs that were archived by the statement that ended their last run how that changed them."""
    archived = {
        (change.transaction, change.id): change for change in changes if change.subject.startswith("job_archive")
    }
    found: list[Change] = []
    for change in changes:
        ended = archived.get((change.transaction, change.id))
        if change.subject == "job delete" and change.before["stopped_at"] is None and ended is not None:
            # As if it had stayed for a moment: the archive has all of it but the columns of its claim.
            after = {**change.before, **ended.after}
            found.append(attrs.evolve(change, subject="job", after=after))
            found.append(attrs.evolve(change, before=after))
        else:
            found.append(change)
    return found


def _transactions(records: Iterable[Row]) -> list[Transaction]:
    records = list(records)
    answers = {record["job"]: record for record in records if record["what"] == "key answered"}
    keyed: dict[str, list[KeyedAdd]] = {}
    for record in records:
        if record["what"] == "key asked":
            keyed.setdefault(record["transaction"], []).append(_keyed_add(record, answers.get(record["job"])))
    fates = {record["transaction"]: record["fate"] for record in records if record["what"] == "transaction ended"}
    return [
        _transaction(record, fates.get(record["transaction"]), keyed.get(record["transaction"], []))
        for record in records
        if record["what"] == "transaction began"
    ]


def _transaction(record: Row, fate: str | None, keyed: Sequence[KeyedAdd]) -> Transaction:
    return Transaction(
        id=record["transaction"],
        jobs=(*record["jobs"], *(add.job for add in keyed if add.answer is Answer.ADDED)),
        keyed=tuple(keyed),
        fate=Fate.UNKNOWN if fate is None else Fate(fate),
    )


def _keyed_add(asked: Row, answered: Row | None) -> KeyedAdd:
    add = KeyedAdd(job=asked["job"], type=asked["type"], key=asked["key"], asked_at=asked["wall"])
    if answered is None:
        return add
    return attrs.evolve(add, answer=Answer(answered["answer"]), holder=answered["holder"], answered_at=answered["wall"])


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
