"""What is printed of a chaos run."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from math import inf
from operator import itemgetter

from tests.integration.chaos_parts.findings import Findings
from tests.integration.chaos_parts.history import Change, History
from tests.integration.chaos_parts.lives import lives_of
from tests.integration.chaos_parts.pause_checks import pauses_of

_WIDTH = 46
_MOST_PROBLEMS = 10
_MOST_HISTORIES = 5


def report(faults: Mapping[str, int], history: History, findings: Mapping[str, Findings]) -> Iterator[str]:
    """Tell of the faults, of what went on under them, and of what was checked; and of what is wrong, at length."""
    yield from _table("faults injected", faults)
    yield ""
    yield from _table("what went on", dict(_census(history)))
    yield ""
    yield f"{'invariants checked':{_WIDTH}} looked at   broken"
    for name, found in findings.items():
        yield f"  {name:{_WIDTH - 2}} {found.looked_at:9} {len(found.problems):8}"
    for name, found in findings.items():
        if found.problems:
            yield from _problems(name, found, history)


def _table(title: str, numbers: Mapping[str, int]) -> Iterator[str]:
    yield f"{title:{_WIDTH}} {sum(numbers.values()) if title.startswith('faults') else 'number':>9}"
    for name, number in sorted(numbers.items()):
        yield f"  {name:{_WIDTH - 2}} {number:9}"


def _census(history: History) -> Iterator[tuple[str, int]]:
    fates = Counter(transaction.fate for transaction in history.transactions)
    for fate, number in fates.items():
        yield f"transactions {fate}", number
    yield "jobs", len(history.jobs)
    yield "jobs in the archive", len(history.archive)
    yield "bundles", len(history.bundles)
    yield "bundles that were removed", len(history.changes_of("job_bundle delete"))
    yield "requests (cancel, reset, replay, reschedule)", len(history.requests)
    yield from _census_of_features(history)
    yield "runs", len(history.runs)
    yield "runs that nobody has seen end", sum(run.ended_at is None for run in history.runs)
    lives = lives_of(history)
    ended_at = {key: life.ended_at for key, life in lives.all.items() if life.ended_at is not None}
    outlived = [run for run in history.runs if (run.ended_at or inf) > ended_at.get((run.job, run.claim), inf)]
    yield "runs that outlived their claim", len(outlived)
    late = [run for run in outlived if run.began_at > ended_at[run.job, run.claim]]
    yield "runs that began when their claim was lost", len(late)
    endings = Counter(ending for _, ending, _ in lives.ended)
    for ending, number in endings.items():
        yield f"claims {ending}", number


def _census_of_features(history: History) -> Iterator[tuple[str, int]]:
    answers = Counter(add.answer for transaction in history.transactions for add in transaction.keyed)
    for answer, number in answers.items():
        yield f"unique keys asked for, {answer or 'and no answer'}", number
    inserts = history.changes_of("job insert")
    yield "unique keys held", sum(change.after["unique_key"] is not None for change in inserts)
    pauses = pauses_of(history)
    yield "pauses", sum(not pause.is_back_off for pause in pauses)
    yield "back-offs of all processes", sum(pause.is_back_off for pause in pauses)
    ticks = Counter(_kind_of_tick(tick) for tick in history.changes_of("schedule_tick insert"))
    for kind, number in ticks.items():
        yield f"ticks {kind}", number
    taken = [change for change in history.changes_of("job delete") if change.before["stopped_at"] is not None]
    at_once = sum(datetime.fromisoformat(change.before["stopped_at"]).timestamp() == change.began for change in taken)
    yield "jobs that were archived when they stopped", at_once


def _kind_of_tick(tick: Change) -> str:
    if tick.after["by_hand"]:
        return "by hand"
    return "with a job" if tick.after["skipped"] is None else f"skipped ({tick.after['skipped']})"


def _problems(name: str, found: Findings, history: History) -> Iterator[str]:
    yield ""
    yield f"BROKEN: {name}"
    for problem, subject in found.problems[:_MOST_PROBLEMS]:
        yield f"  {subject}: {problem}"
    if len(found.problems) > _MOST_PROBLEMS:
        yield f"  and {len(found.problems) - _MOST_PROBLEMS} more"
    for subject in list(dict.fromkeys(subject for _, subject in found.problems))[:_MOST_HISTORIES]:
        yield from _history_of(subject, history)


def _history_of(subject: str, history: History) -> Iterator[str]:
    yield f"  what is known of {subject}:"
    row = history.jobs.get(subject) or history.bundles.get(subject)
    yield f"    in the end: {row and {name: str(value)[:100] for name, value in row.items() if value is not None}}"
    for transaction in history.transactions:
        if subject in transaction.jobs:
            yield f"    transaction {transaction.id}: {transaction.fate}"
        for add in transaction.keyed:
            if subject in {add.job, add.holder}:
                yield f"    transaction {transaction.id}, {transaction.fate}: {add}"
    for request in history.requests:
        if request.job == subject:
            yield f"    asked for: {request.act}, answer {request.answer}"
    for _, line in sorted(_moments(subject, history), key=itemgetter(0)):
        yield f"    {line}"


def _moments(subject: str, history: History) -> Iterator[tuple[float, str]]:
    for run in history.runs:
        if run.job == subject:
            yield run.began_at, f"{run.began_at:.3f} run of claim {run.claim} by process {run.pid}"
            if run.ended_at is not None:
                outcome = f"{run.outcome}, and knew that its claim was lost" if run.is_lost else run.outcome
                yield run.ended_at, f"{run.ended_at:.3f} run of claim {run.claim} ended: {outcome}"
    for change in history.changes:
        if change.id == subject:
            changed = {
                name: f"{change.before.get(name)} -> {value}"
                for name, value in change.after.items()
                if change.before.get(name) != value
            }
            yield change.at, f"{change.at:.3f} change {change.seq} ({change.subject}): {changed}"[:600]
