"""What a retention takes, and what it says of a job."""

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

import jobqueue
from jobqueue import InvalidJobError, Job, Retention
from jobqueue.retention import KEEP_ALL

DAY = timedelta(days=1)
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def stopped(type: str = "t", **values: Any) -> Job:
    return attrs.evolve(Job.new(type, 1), started_at=NOW, stopped_at=NOW, **values)


def test_what_is_usual() -> None:
    """Succeeded and cancelled jobs are kept for a week, failed ones for 90 days."""
    usual = Retention()
    assert usual.age_for(stopped()) == 7 * DAY
    assert usual.age_for(stopped(error_msg="e")) == 90 * DAY
    assert usual.age_for(stopped(error_msg="cancelled", cancelled_at=NOW)) == 7 * DAY
    assert (usual.mode, usual.keeps_all, usual.removes_at_once, usual.youngest) == ("delete", False, False, 7 * DAY)


def test_nothing_is_removed() -> None:
    """None is for ever."""
    assert (KEEP_ALL.keeps_all, KEEP_ALL.youngest, KEEP_ALL.age_for(stopped())) == (True, None, None)


def test_the_closest_rule_counts() -> None:
    """The type itself, then the longest pattern; what that leaves open is as for all types."""
    by_type: Any = {"*": {"failed": DAY}, "a:*": {"succeeded": None}, "a:b:*": {"succeeded": 2 * DAY}, "a:b:c": {}}
    retention = Retention(by_type=by_type, succeeded=timedelta(0))
    ages = {name: retention.age_for(stopped(name)) for name in ("a", "a:b", "a:b:x", "a:b:c", "a:b:cd")}
    zero = timedelta(0)
    assert ages == {"a": zero, "a:b": None, "a:b:x": 2 * DAY, "a:b:c": zero, "a:b:cd": 2 * DAY}
    assert retention.age_for(stopped("other", error_msg="e")) == DAY
    assert retention.age_for(stopped("a:b", error_msg="e")) == 90 * DAY
    assert (retention.removes_at_once, retention.youngest) == (True, zero)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"succeeded": 7}, TypeError, "succeeded must be a timedelta, or None to keep jobs for ever, not 7"),
        ({"failed": -DAY}, ValueError, "failed must be from zero"),
        ({"cancelled": timedelta.max}, ValueError, "cancelled must be from zero"),
        ({"mode": "drop"}, ValueError, "mode must be 'delete' or 'archive', not 'drop'"),
        ({"by_type": [DAY]}, TypeError, "by_type must be a mapping"),
        ({"by_type": {"t": DAY}}, TypeError, r"by_type\['t'\] must be like"),
        ({"by_type": {"t": {"success": DAY}}}, ValueError, "has success, but ages are succeeded, failed, cancelled"),
        ({"by_type": {"t": {"failed": 1}}}, TypeError, r"by_type\['t'\]\['failed'\] must be a timedelta"),
        ({"by_type": {"t*": {}}}, InvalidJobError, "neither a job type"),
        ({"by_type": {"": {}}}, InvalidJobError, "by_type must have 1 to 100 characters"),
    ],
)
def test_what_is_refused(values: dict[str, Any], error: type[Exception], message: str) -> None:
    """A value that makes no sense is named, when the retention is made."""
    with pytest.raises(error, match=message):
        Retention(**values)


def test_it_does_not_change() -> None:
    """What was given can be changed without an effect; two that say the same are equal."""
    ages: Any = {"t": {"failed": DAY}}
    retention = Retention(by_type=ages)
    ages["t"]["failed"] = None
    ages["u"] = {}
    assert retention.by_type == {"t": {"failed": DAY}}
    assert retention == Retention(by_type={"t": {"failed": DAY}})


def test_a_memory_queue_takes_it() -> None:
    """A service refuses what is none."""
    with pytest.raises(TypeError, match="retention must be Retention"):
        jobqueue.connect("memory://", retention=DAY)
