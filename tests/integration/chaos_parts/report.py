"""What is printed of a chaos run."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import inf

from tests.integration.chaos_parts.findings import Findings
from tests.integration.chaos_parts.history import History
from tests.integration.chaos_parts.lives import lives_of

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
    yield "bundles", len(history.bundles)
    yield "requests (cancel, reset, replay, reschedule)", len(history.requests)
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
    for request in history.requests:
        if request.job == subject:
            yield f"    asked for: {request.act}, answer {request.answer}"
    for _, line in sorted(_moments(subject, history)):
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
                name: f"{change.before[name]} -> {value}"
                for name, value in change.after.items()
                if change.before[name] != value
            }
            yield change.at, f"{change.at:.3f} change {change.seq}: {changed}"[:600]
