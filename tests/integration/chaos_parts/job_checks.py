"""What must be true of jobs, from the transaction that adds them to the state in which they end."""

from collections import Counter

from jobqueue import State
from tests.integration.chaos_parts.findings import Findings, is_final
from tests.integration.chaos_parts.history import Fate, History, Row
from tests.integration.chaos_parts.lives import Ending, lives_of
from tests.integration.chaos_parts.plan import ATOMIC_TYPES, PLANNED, SCHEDULES


def committed_are_there(history: History) -> Findings:
    """No committed enqueue is lost."""
    findings = Findings()
    for transaction in history.transactions:
        if transaction.fate is Fate.COMMITTED:
            for job in transaction.jobs:
                findings.look(job in history.jobs, f"committed by {transaction.id}, and not there", job)
    return findings


def rolled_back_never_were(history: History) -> Findings:
    """Nothing that was rolled back exists, or was run."""
    findings = Findings()
    were_run = {run.job for run in history.runs}
    for transaction in history.transactions:
        if transaction.fate is Fate.ROLLED_BACK:
            for job in (*transaction.jobs, *transaction.maybe):
                absent = job not in history.jobs and job not in were_run
                findings.look(absent, f"rolled back by {transaction.id}, and there, or run", job)
    return findings


def unknown_are_whole(history: History) -> Findings:
    """A transaction of which nobody knows whether it was committed is there as a whole, or was never."""
    findings = Findings()
    were_run = {run.job for run in history.runs}
    for transaction in history.transactions:
        if transaction.fate is Fate.UNKNOWN and transaction.jobs:
            there = sum(job in history.jobs for job in transaction.jobs)
            ran = any(job in were_run for job in transaction.jobs)
            whole = there == len(transaction.jobs) or (there == 0 and not ran)
            problem = f"{there} of {len(transaction.jobs)} jobs of {transaction.id} are there"
            findings.look(whole, problem, transaction.jobs[0])
    return findings


def nothing_from_nowhere(history: History) -> Findings:
    """Every job was added by somebody: an enqueuer, the completion of a bundle, an atomic run, or a schedule."""
    findings = Findings()
    added = {job for transaction in history.transactions for job in (*transaction.jobs, *transaction.maybe)}
    for id_, job in history.jobs.items():
        by_itself = job["completes_bundle_id"] is not None or job["type"] in {"follow-up", *SCHEDULES}
        known = id_ in added or by_itself
        findings.look(known, "nobody has added it", id_)
    return findings


def every_job_is_final(history: History) -> Findings:
    """Every job has come to its end."""
    findings = Findings()
    for id_, job in history.jobs.items():
        findings.look(is_final(job), "it has not come to its end", id_)
    return findings


def every_job_ended_as_planned(history: History) -> Findings:
    """A job succeeds, fails or is discarded as it was made to, unless somebody has cancelled it."""
    findings = Findings()
    may_be_cancelled = {
        request.job for request in history.requests if request.act == "cancel" and request.answer is not False
    }
    for id_, job in history.jobs.items():
        if is_final(job):
            planned, state = PLANNED[job["type"]], _state(job)
            as_planned = state is planned or (state is State.CANCELLED and id_ in may_be_cancelled)
            findings.look(as_planned, f"it is {state}, and should be {planned}: {job['error_msg']}", id_)
    return findings


def cancels_were_done(history: History) -> Findings:
    """As many cancels are in a job's history as were confirmed, and no more than were asked for."""
    findings = Findings()
    done = Counter(
        change.id
        for change in history.changes
        if change.subject == "job"
        and change.before["cancelled_at"] is None
        and change.after["cancelled_at"] is not None
        and change.after["run_count"] == change.before["run_count"]
    )
    asked = [request for request in history.requests if request.act == "cancel"]
    confirmed = Counter(request.job for request in asked if request.answer)
    possible = Counter(request.job for request in asked if request.answer is not False)
    for job in possible | done:
        right = confirmed[job] <= done[job] <= possible[job]
        problem = f"{confirmed[job]} cancels were confirmed, {possible[job]} asked for, {done[job]} done"
        findings.look(right, problem, job)
    return findings


def atomic_effects_once(history: History) -> Findings:
    """What an atomic run did is there once if its outcome was saved, and not at all otherwise; so is its job."""
    findings = Findings()
    effects = Counter(history.effects)
    follow_ups = Counter(
        (job["payload"]["of_job"], job["payload"]["of_claim"])
        for job in history.jobs.values()
        if job["type"] == "follow-up"
    )
    lives = lives_of(history)
    expected = {
        (life.job, life.claim) for life, ending, _ in lives.ended if life.type in ATOMIC_TYPES and ending.has_effect
    }
    atomic = {key for key, life in lives.all.items() if life.type in ATOMIC_TYPES}
    for key in atomic | set(effects) | set(follow_ups):
        wanted = int(key in expected)
        problem = f"claim {key[1]} has {effects[key]} effects and {follow_ups[key]} follow-up jobs, not {wanted}"
        findings.look(effects[key] == follow_ups[key] == wanted, problem, key[0])
    for id_, job in history.jobs.items():
        if job["type"] in ATOMIC_TYPES and is_final(job) and _state(job) is State.SUCCEEDED:
            once = any(key[0] == id_ and key in effects for key in [(id_, str(job["claim_id"]))])
            findings.look(once, "it succeeded without an effect of the claim that finished it", id_)
    return findings


def nothing_is_running(history: History) -> Findings:
    """No job is left as if somebody were running it."""
    findings = Findings()
    for id_, job in history.jobs.items():
        running = job["started_at"] is not None and job["stopped_at"] is None
        findings.look(not running, f"it is left running by {job['claimed_by']}", id_)
    return findings


def no_job_is_given_up(history: History) -> Findings:
    """However often a job is taken up again, it is not given up before its limit."""
    findings = Findings()
    for life, ending, _ in lives_of(history).ended:
        findings.look(ending is not Ending.GIVEN_UP, f"claim {life.claim} was the last that it got", life.job)
    return findings


def _state(job: Row) -> State:
    if job["cancelled_at"] is not None:
        return State.CANCELLED
    return State.SUCCEEDED if job["error_msg"] is None else State.FAILED
