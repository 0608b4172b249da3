"""What is told to an integration of the calls that change rows."""

from contextlib import closing
from datetime import timedelta

import pytest

import jobqueue
from jobqueue import CleanResult, Job, JobBundle, JobDesc, Retention

AT_ONCE = Retention(succeeded=timedelta(0), failed=timedelta(0), cancelled=timedelta(0))


@pytest.fixture
def service():
    with closing(jobqueue.connect("memory://", origin="tests", unknown_types="allow")) as service:
        yield service


@pytest.fixture
def told(service):
    """The names of the methods that have changed something."""
    names = []
    service.watch_changes(lambda name, connection: names.append(name))
    assert names == []
    return names


def test_what_changes_is_told(service, told):
    """Each call is told once, by the name of its method, whatever it is made of."""
    service.enqueue("t", 1)
    job = service.add_job(Job.new("t", 1))
    service.add_jobs([Job.new("t", 1), Job.new("t", 2)])
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(1, "t")]))
    service.cancel_job(job.id)
    service.reset_job(job.id)
    service.pause("t")
    service.delete_job_bundle(bundle.id)
    service.delete_jobs(type="t")
    names = "enqueue add_job add_jobs add_bundle cancel_job reset_job pause delete_job_bundle delete_jobs"
    assert told == names.split()


def test_what_changes_nothing_is_not(service, told):
    """Nothing is told of readings, of duplicates that are left as they are, nor of what finds nothing to change."""
    service.enqueue("t", 1, unique_key="k")
    service.enqueue("t", 2, unique_key="k")
    service.add_jobs([])
    service.get_status()
    assert service.clean(AT_ONCE) == CleanResult()
    assert service.delete_jobs_of_type("nothing") == 0
    assert not service.resume("nothing")
    assert told == ["enqueue"]
    service.enqueue("t", 3, unique_key="k", on_conflict="replace_payload")
    assert told == ["enqueue", "enqueue"]


def test_what_is_cleaned_is_told(service, told):
    """That old jobs were removed is told; that there were none is not."""
    job = service.enqueue("t", 1)
    service.cancel_job(job.id)
    assert service.clean(AT_ONCE) == CleanResult(jobs=1)
    assert told == ["enqueue", "cancel_job", "clean"]
