"""What must be true of unique keys, of those who hold them, and of what enqueuers are told of that."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from math import inf
from typing import Any

import attrs

from tests.integration.chaos_parts.findings import Findings, is_final
from tests.integration.chaos_parts.history import Answer, Change, Fate, History, KeyedAdd

Row = Mapping[str, Any]

# From the moment that a commit shows until others see what was committed, on a machine that has more to do.
_BLUR = 0.25
_SUBJECTS = ("job insert", "job", "job delete")


@attrs.define(kw_only=True)
class Hold:
    """That a job held a key, from one change until another; moments are of the database's clock."""

    job: str
    since: float
    until: float = inf


def one_at_a_time(history: History) -> Findings:
    """Nobody gets a key that another job of the type holds."""
    findings = Findings()
    holders: dict[tuple[str, str], str] = {}
    for change in history.changes_of(*_SUBJECTS):
        was, is_ = _held(change.before), _held(change.after)
        if was == is_:
            continue
        if was is not None and holders.get(was) == change.id:
            del holders[was]
        if is_ is not None:
            holder = holders.setdefault(is_, change.id)
            findings.look(holder == change.id, f"it gets the key {is_}, which {holder} holds", change.id)
    return findings


def as_long_as_its_scope(history: History) -> Findings:
    """A job holds its key until its scope ends, and not after that; reset or replayed, it may take it back."""
    findings = Findings()
    for change in _last_of_transactions(history):
        if _held(change.after) is not None:
            findings.look(_scope_has_ended(change) is not True, f"it still holds its key: {_shown(change)}", change.id)
            taken = change.before.get("unique_key") is None and change.subject == "job"
            findings.look(not taken or _is_new(change.after), f"it takes its key back: {_shown(change)}", change.id)
        elif _held(change.before) is not None:
            kept = change.after["unique_key_spent"] == change.before["unique_key"]
            findings.look(kept, f"the key that it gives up is forgotten: {_shown(change)}", change.id)
            early = _scope_has_ended(change) is False
            findings.look(not early, f"it gives up its key early: {_shown(change)}", change.id)
    for change in history.changes_of("job delete"):
        # Of a job that has stopped, only a period may go on; who forgets a failure, forgets what it holds.
        if change.before["unique_key"] is not None and change.before["unique_until"] is not None:
            is_over = datetime.fromisoformat(change.before["unique_until"]).timestamp() <= change.wall
            findings.look(is_over, f"it was taken out of the queue with its key: {_shown(change)}", change.id)
    return findings


def duplicates_are_of_holders(history: History) -> Findings:
    """Who is told of a duplicate is told of a job that held the key at a moment between question and answer."""
    findings = Findings()
    holds = _holds(history)
    for transaction in history.transactions:
        # What somebody has added before, in the same transaction, nobody else has seen.
        own = {(add.job, add.type, add.key) for add in transaction.keyed if add.answer is Answer.ADDED}
        for add in transaction.keyed:
            if add.answer is Answer.DUPLICATE:
                fitting = any(_fits(hold, add) for hold in holds[add.type, add.key])
                problem = f"{add.job} was refused because of it, which did not hold {add.key!r} of {add.type!r} then"
                findings.look(fitting or (add.holder, add.type, add.key) in own, problem, str(add.holder))
    return findings


def added_as_told(history: History) -> Findings:
    """Jobs with keys that were added, as somebody was told who has committed, are there; those left out are not."""
    findings = Findings()
    were_run = {run.job for run in history.runs}
    for transaction in history.transactions:
        for add in transaction.keyed:
            if add.answer is Answer.ADDED and transaction.fate is Fate.COMMITTED:
                findings.look(add.job in history.jobs, f"added by {transaction.id}, and not there", add.job)
        for job in transaction.left_out:
            absent = job not in history.jobs and job not in were_run
            findings.look(absent, f"{transaction.id} was told that it was left out, and it is there, or ran", job)
    return findings


def _held(row: Row) -> tuple[str, str] | None:
    key = row.get("unique_key")
    return None if key is None else (str(row["type"]), str(key))


def _holds(history: History) -> dict[tuple[str, str], list[Hold]]:
    found: dict[tuple[str, str], list[Hold]] = defaultdict(list)
    open_: dict[tuple[str, str, str], Hold] = {}
    for change in history.changes_of(*_SUBJECTS):
        was, is_ = _held(change.before), _held(change.after)
        if was == is_:
            continue
        if was is not None and (hold := open_.pop((*was, change.id), None)) is not None:
            hold.until = change.committed
        if is_ is not None:
            open_[*is_, change.id] = hold = Hold(job=change.id, since=change.wall)
            found[is_].append(hold)
    return found


def _fits(hold: Hold, add: KeyedAdd) -> bool:
    return hold.job == add.holder and hold.since <= add.answered_at + _BLUR and hold.until >= add.asked_at - _BLUR


def _last_of_transactions(history: History) -> Iterator[Change]:
    """Yield what each transaction has made of each job: a trigger may free a key after the statement that ends it."""
    found: dict[tuple[int, str], Change] = {}
    for change in history.changes_of(*_SUBJECTS):
        first = found.get((change.transaction, change.id), change)
        found[change.transaction, change.id] = attrs.evolve(
            change, before=first.before, subject="job insert" if first.subject == "job insert" else change.subject
        )
    for change in found.values():
        if change.subject != "job delete":
            yield change


def _scope_has_ended(change: Change) -> bool | None:
    """Whether a job does not hold a key any more as it is after *change*; None: it may do so or not."""
    row = change.after
    match row["unique_for"]:
        case "waiting":
            return row["started_at"] is not None or row["stopped_at"] is not None
        case "waiting_and_running":
            return is_final(row)
        case "until_succeeded":
            return is_final(row) and (row["error_msg"] is None or row["cancelled_at"] is not None)
        case _:
            until = datetime.fromisoformat(row["unique_until"]).timestamp()
            # Until somebody else wants it.
            return None if until <= change.wall else False


def _is_new(row: Row) -> bool:
    return row["started_at"] is None and row["stopped_at"] is None and row["run_count"] == 0


def _shown(change: Change) -> dict[str, Any]:
    names = ("unique_for", "unique_key", "unique_key_spent", "unique_until", "started_at", "stopped_at", "error_msg")
    return {name: (change.after or change.before).get(name) for name in names}
