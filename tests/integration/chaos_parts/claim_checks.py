"""What must be true of claims, and of the runs that they allow."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from math import inf

from tests.integration.chaos_parts.findings import Findings
from tests.integration.chaos_parts.history import Change, History, Run
from tests.integration.chaos_parts.lives import Ending, Life, lives_of
from tests.integration.chaos_parts.plan import ATOMIC_TYPES, DEAD_FOR, GO_TYPE

# Moments of the database are put on the clock of the runs by way of a third, so that they may be off by this.
_BLUR = 0.005
_OUTCOMES: Mapping[Ending, frozenset[str]] = {
    Ending.FINISHED: frozenset({"finished"}),
    Ending.SNOOZED: frozenset({"snoozed"}),
    Ending.DISCARDED: frozenset({"discarded"}),
    Ending.FAILED: frozenset({"failed", "error"}),
    Ending.RETRIED: frozenset({"failed", "error"}),
}


def claims_follow_one_another(history: History) -> Findings:
    """A claim is made while no other is valid, of a job that has not stopped, and ends once."""
    lives = lives_of(history)
    findings = Findings(len(lives.all), list(lives.misfits))
    for life in lives.all.values():
        if life.ending is None:
            findings.problems.append((f"claim {life.claim} has never ended", life.job))
    return findings


def runs_have_claims(history: History) -> Findings:
    """Each run is of a claim that was committed before, and no claim is run twice."""
    findings = Findings()
    lives = lives_of(history).all
    times = Counter((run.job, run.claim) for run in _our_runs(history))
    for run in _our_runs(history):
        life = lives.get((run.job, run.claim))
        claimed = life is not None and life.began_at <= run.began_at + _BLUR
        findings.look(claimed, f"a run began without its claim {run.claim}", run.job)
    for (job, claim), number in times.items():
        findings.look(number == 1, f"claim {claim} was run {number} times", job)
    return findings


def valid_runs_never_overlap(history: History) -> Findings:
    """While a run goes on and its claim is valid, no other run of its job does; a zombie's is valid no more."""
    findings = Findings()
    lives = lives_of(history).all
    by_job: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for run in _our_runs(history):
        end = _end_of_validity(run, lives.get((run.job, run.claim)))
        # Begun when its claim was lost already, by a process that was frozen just before, it was never valid.
        if run.began_at < end:
            by_job[run.job].append((run.began_at, end, run.claim))
    for job, valid in by_job.items():
        valid.sort()
        findings.looked_at += 1
        for (_, end, earlier), (began_at, _, later) in pairwise(valid):
            if began_at < end - _BLUR:
                findings.problems.append((f"claim {later} was run while {earlier} was valid and ran", job))
    return findings


def outcomes_are_of_their_claim(history: History) -> Findings:
    """What is saved of a claim is what its own run led to, which had ended by then."""
    findings = Findings()
    runs = {(run.job, run.claim): run for run in history.runs}
    for life, ending, change in lives_of(history).ended:
        if ending.is_of_run:
            run = runs.get((life.job, life.claim))
            ended = run is not None and run.ended_at is not None and run.ended_at <= change.at + _BLUR
            same = run is not None and run.outcome in _OUTCOMES[ending]
            problem = f"claim {life.claim} was saved as {ending}, but its run is {run}"
            findings.look(ended and same and life.claim in _words(ending, change), problem, life.job)
    return findings


def silence_was_long_enough(history: History) -> Findings:
    """A claim is taken up only when it was silent for dead_for, of which the server was up all the time."""
    findings = Findings()
    dead_for = DEAD_FOR.total_seconds()
    for life, ending, change in lives_of(history).ended:
        # An atomic run that was cut off from its transaction is given back by its own worker, and counted alike.
        if ending is not Ending.REAPED or life.type in ATOMIC_TYPES:
            continue
        heard_from = max((start for start in history.server_starts if start <= change.wall), default=-inf)
        silent_for = change.wall - max(_alive_at(change), heard_from)
        problem = f"claim {life.claim} was taken away after {silent_for:.3f} s of silence that counts"
        findings.look(silent_for >= dead_for - _BLUR, problem, life.job)
    return findings


def _our_runs(history: History) -> list[Run]:
    return [run for run in history.runs if run.type != GO_TYPE]


def _end_of_validity(run: Run, life: Life | None) -> float:
    run_end = inf if run.ended_at is None else run.ended_at
    claim_end = inf if life is None or life.ended_at is None else life.ended_at
    return min(run_end, claim_end)


def _words(ending: Ending, change: Change) -> str:
    """Return what the row keeps of a run's own words, which name its claim; without any, the claim of the row."""
    after = change.after
    if ending is Ending.FINISHED:
        return str(after["result"])
    failure = after["last_failure"]["error_msg"] if ending is Ending.RETRIED else after["error_msg"]
    return str(failure) if failure is not None and "claim" in failure else str(change.before["claim_id"])


def _alive_at(change: Change) -> float:
    return datetime.fromisoformat(change.before["worker_alive_at"]).timestamp()
