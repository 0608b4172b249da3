"""What a service refuses to add, whoever made it, and which places of a list it knows."""

from datetime import UTC, datetime

import attrs
import pytest

import jobqueue
from jobqueue import InvalidJobError, Job, JobBundle, JobDesc

NOW = datetime.now(UTC)


@pytest.fixture
def service():
    with jobqueue.connect("memory://") as service:
        yield service


SPOILT = [
    ({"id": "1"}, "id"),
    ({"type": ""}, "type"),
    ({"type": "x" * 101}, "type"),
    ({"type": "a\0"}, "type"),
    ({"origin": "x" * 101}, "origin"),
    ({"priority": 2**63}, "priority"),
    ({"max_retry_count": -1}, "max_retry_count"),
    ({"start_at": datetime(2030, 1, 1)}, "start_at"),  # noqa: DTZ001 - that is what is wrong with it
]


@pytest.mark.parametrize(("values", "field"), SPOILT)
def test_a_job_that_was_changed_is_checked_again(service, values, field):
    """Limits hold for jobs that were not made by Job.new, alone and among others; nothing is added."""
    good = Job.new("t", 1)
    bad = attrs.evolve(Job.new("t", 2), **values)
    for add in (lambda: service.add_job(bad), lambda: service.add_jobs([good, bad])):
        with pytest.raises(InvalidJobError) as caught:
            add()
        assert caught.value.field == field
    assert service.get_status().is_zero


@pytest.mark.parametrize(("values", "field"), [({"type": "x" * 101}, "type"), ({"origin": ""}, "origin")])
def test_a_bundle_that_was_changed_is_checked_again(service, values, field):
    """Limits hold for bundles that were not made by JobBundle.new, and for their members."""
    bundle = JobBundle.new("b", [JobDesc(1, type="t")])
    spoilt_member = attrs.evolve(bundle, jobs=(attrs.evolve(bundle.jobs[0], **values),))
    for bad in (attrs.evolve(bundle, **values), spoilt_member):
        with pytest.raises(InvalidJobError) as caught:
            service.add_bundle(bad)
        assert caught.value.field == field
    assert service.get_status().is_zero


NOT_A_PLACE = [(), (None, None), (NOW,), (NOW, "id"), "next", Job.new("t", 1).id, NOW]


@pytest.mark.parametrize("after", NOT_A_PLACE)
def test_a_list_goes_on_after_a_place(service, after):
    """What is no place in the list is refused, and does not start it anew."""
    with pytest.raises(InvalidJobError, match="after takes a Job, or its created_at and id"):
        service.list_jobs(after=after)


def test_a_place_has_a_time_zone(service):
    """A place whose moment could be anywhere is refused."""
    with pytest.raises(InvalidJobError, match="has no time zone"):
        service.list_jobs(after=(NOW.replace(tzinfo=None), Job.new("t", 1).id))


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
@pytest.mark.parametrize(
    "delete",
    ["delete_jobs_of_type", "delete_jobs_from_origin", "delete_job_bundles_of_type", "delete_job_bundles_from_origin"],
)
def test_a_text_that_no_row_can_have(service, delete, text):
    """To delete by a text that PostgreSQL could not store is refused, on every backend alike."""
    with pytest.raises(InvalidJobError, match="cannot store"):
        getattr(service, delete)(text)
