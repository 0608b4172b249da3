"""What the machine's rules draw: few values of each kind, so that they meet."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from hypothesis import strategies as st

from jobqueue import Job, JobDesc, Never, Waits
from jobqueue.outcomes import Claimant, Outcome, RunError
from tests.conformance.acts import DEAD_FOR, ERROR, FUTURE, HOUR, MORTAL, PAST, SECOND
from tests.fixtures.stores import START

NOTHING: Final = timedelta(0)
ORIGINS: Final = ("o", "p")
TYPES: Final = ("a", "a:x", "b")
AFTER: Final = "after"
"""The type of the jobs that completions add."""

ENDS: Final[dict[str, Callable[[Job], Outcome]]] = {
    "finished": lambda job: Outcome.finished(job, '{"ok": true}'),
    "finished with nothing": Outcome.finished,
    "failed": lambda job: Outcome.failed(job, ERROR),
    "failed with nothing": lambda job: Outcome.failed(job, RunError(message="")),
    "retry at once": lambda job: Outcome.retry(job, ERROR, delay=NOTHING),
    "retry in a second": lambda job: Outcome.retry(job, ERROR, delay=SECOND),
    "retry in the past": lambda job: Outcome.retry(job, ERROR, start_at=PAST),
    "retry in the far future": lambda job: Outcome.retry(job, ERROR, start_at=FUTURE),
    "retry as before": lambda job: Outcome.retry(job, ERROR),
    "snoozed": lambda job: Outcome.snoozed(job, NOTHING),
    "snoozed for an hour": lambda job: Outcome.snoozed(job, HOUR),
    "released": Outcome.released,
    "discarded": lambda job: Outcome.discarded(job, "not worth it"),
}

ends: Final = st.just("finished") | st.sampled_from(list(ENDS))
origins: Final = st.sampled_from(ORIGINS)
types: Final = st.sampled_from([*TYPES, AFTER])
wanted: Final = st.one_of(
    st.just(["*"]), st.lists(st.sampled_from([*TYPES, AFTER, "a*", "a:*", "nothing"]), min_size=1, max_size=3)
)
kinds: Final = st.sampled_from("gh")
limits: Final = st.integers(1, 4)
start_at: Final = st.sampled_from([None, None, None, PAST, START + SECOND, START + HOUR, FUTURE])
delays: Final = st.sampled_from([None, None, NOTHING, SECOND, HOUR])
progress: Final = st.sampled_from(["0.5", '{"message": "half"}'])

claimants: Final = st.sampled_from(
    [
        Claimant(name="patient", lease=HOUR),
        Claimant(name="prompt", lease=SECOND),
        Claimant(name="without beats", lease=DEAD_FOR, beats=False),
        MORTAL,
    ]
)
dead_for: Final = st.sampled_from([DEAD_FOR, 20 * DEAD_FOR])
"""Shorter than any server has been up: silence counts only while the queue could hear."""

max_rescues: Final = st.integers(0, 2)
passing: Final = st.sampled_from([timedelta(microseconds=1), DEAD_FOR, 20 * DEAD_FOR, SECOND, HOUR])
kept_for: Final = st.sampled_from([NOTHING, SECOND])


policies: Final = st.sampled_from([None, Never(), Waits([SECOND, HOUR], only_for=OSError)])


def _descs(start_at: st.SearchStrategy[datetime | None]) -> st.SearchStrategy[JobDesc]:
    return st.builds(
        JobDesc,
        payload=st.just({"a": 1}),
        type=st.sampled_from(TYPES),
        origin=origins,
        priority=st.integers(-1, 1),
        max_retry_count=st.integers(0, 2),
        start_at=start_at,
        retry=policies,
    )


descs: Final = _descs(start_at)
several_descs: Final = st.lists(descs, min_size=1, max_size=6)
members: Final = st.lists(_descs(st.none()) | descs, min_size=1, max_size=3)
after: Final = st.none() | st.builds(
    JobDesc,
    payload=st.just("done"),
    type=st.just(AFTER),
    origin=st.none() | origins,
    priority=st.integers(-1, 1),
    max_retry_count=st.integers(0, 1),
    start_at=st.sampled_from([None, None, FUTURE]),
    retry=policies,
)
bundles: Final = st.fixed_dictionaries({"origin": origins, "on_stopped": after, "delete_when_succeeded": st.booleans()})


unique: Final = st.fixed_dictionaries(
    {
        "unique_key": st.sampled_from("kl"),
        "unique_for": st.sampled_from(["waiting", "waiting_and_running", "until_succeeded", SECOND, HOUR]),
    }
)
ways: Final = st.sampled_from(["ignore", "raise", "replace_payload"])


def job_of(desc: JobDesc, **unique: Any) -> Job:
    """Return a job that a store takes."""
    return Job.new(
        desc.type,
        desc.payload,
        origin=desc.origin,
        priority=desc.priority,
        max_retry_count=desc.max_retry_count,
        start_at=desc.start_at,
        retry=desc.retry,
        **unique,
    )
