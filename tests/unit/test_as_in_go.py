"""What docs/from-go-jobqueue.md says beside the subjects of other tests, without a database."""

import inspect
import math
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import attrs
import pytest

import jobqueue
from jobqueue import (
    ClosedError,
    InvalidJobError,
    Job,
    JobBundle,
    JobBundleNotFoundError,
    JobDesc,
    JobNotFoundError,
    PayloadError,
    RegistrationError,
    Registry,
    Service,
    context,
    converter,
    errors,
    job_type_of,
)
from jobqueue.models import new_id
from jobqueue.service.schedules import Schedules
from jobqueue.testing import ignore_job_bundles, ignore_jobs

FOR_POOLS = {"attach", "detach", "listeners", "max_payload_bytes", "notifier", "origin", "settings", "store", "vitals"}
"""What worker pools and testing aids want of a service."""

FOR_OPERATORS = {
    "check_connection",
    "clean",
    "count_jobs",
    "count_old_jobs",
    "delete_jobs",
    "oldest_due_age",
    "recent_activity",
    "replay_jobs",
}
FOR_SCHEDULES = {name for name in dir(Schedules) if not name.startswith("_")}
NOT_FUNCTIONS = (
    FOR_POOLS | FOR_OPERATORS | FOR_SCHEDULES | {"add_middleware", "use", "work_middleware", "use_in_workers"}
)
"""Those, what whoever has made a service does with it once, and what an operator does."""


class Celsius:
    """A type of an application, which JSON knows nothing of."""

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees


@attrs.frozen
class ReportOfTheMonthlyTurnoverOfAllBranchesOfTheCompanyByProductGroupAndCustomerWithComparisonToTheYearBefore:
    """A payload whose class has a longer name than a job type."""


LongNamed = ReportOfTheMonthlyTurnoverOfAllBranchesOfTheCompanyByProductGroupAndCustomerWithComparisonToTheYearBefore


@pytest.fixture
def service() -> Iterator[Service]:
    """The current service, on a queue in memory."""
    with closing(jobqueue.connect("memory://", origin="tests")) as service, jobqueue.use_service(service):
        yield service


# --- making jobs


def test_a_new_job_has_no_moments():
    """What the database's clock says is None until the job is read."""
    made = Job.new("t", 1)
    assert (made.created_at, made.updated_at, made.started_at, made.worker_alive_at, made.stopped_at) == (None,) * 5
    assert made.current_retry_count == 0


def test_a_hook_of_an_application_spells_its_values():
    """A type of one's own has the JSON form that its hook gives it, which is checked like any other."""
    converter.register_unstructure_hook(Celsius, lambda celsius: {"degrees": celsius.degrees})
    assert Job.new("t", Celsius(21.5)).payload == {"degrees": 21.5}
    with pytest.raises(PayloadError):
        Job.new("t", Celsius(math.nan))


def test_members_have_ids_of_their_own():
    """A bundle's members, made of equal descriptions, are different jobs, without retries unless they name some."""
    bundle = JobBundle.new("b", [JobDesc(1, type="t")] * 3)
    assert len({bundle.id, *(job.id for job in bundle.jobs)}) == 4
    assert [job.max_retry_count for job in bundle.jobs] == [0, 0, 0]


@pytest.mark.parametrize(
    "desc", [JobDesc(math.nan, type="t"), JobDesc(2), JobDesc(2, type=""), JobDesc(None, type="t")]
)
def test_one_member_that_cannot_be_made_makes_no_bundle(desc):
    """A single description of which no job can be made is the error of the whole bundle."""
    with pytest.raises(InvalidJobError):
        JobBundle.new("b", [JobDesc(1, type="t"), desc])


def test_a_class_with_a_long_name_needs_a_type():
    """A class whose name is longer than a type can be is refused by name, when a job or a handler is made of it."""

    def work(report: LongNamed) -> None: ...

    assert len(job_type_of(LongNamed)) > 100
    with pytest.raises(InvalidJobError) as caught:
        Job.new(None, LongNamed())
    assert caught.value.field == "type"
    with pytest.raises(RegistrationError):
        Registry().register_func(work)
    assert Registry().register_func_for_job_type("report", work).type == "report"


def test_a_bundle_shows_what_it_is():
    """The repr of a bundle has id, type, origin and when it was created, and nothing of what its jobs work on."""
    moment = datetime(2030, 1, 2, tzinfo=UTC)
    bundle = attrs.evolve(JobBundle.new("import", [JobDesc("secret", type="t")], origin="web"), created_at=moment)
    shown = repr(bundle)
    assert [part for part in (str(bundle.id), "'import'", "'web'", repr(moment)) if part not in shown] == []
    assert "secret" not in shown


# --- the service


def test_the_errors_are_one_family():
    """Every error that the package has can be caught as a JobQueueError."""
    found = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, BaseException)]
    assert len(found) > 15
    assert [kind for kind in found if not issubclass(kind, errors.JobQueueError)] == []


def test_the_default_service_cannot_be_none(monkeypatch):
    """Setting no service is refused, and the one from before stays."""
    monkeypatch.setattr(context, "_default", None)
    with closing(jobqueue.connect("memory://", origin="tests")) as service:
        jobqueue.set_default_service(service)
        with pytest.raises(TypeError, match="None"):
            jobqueue.set_default_service(None)  # pyright: ignore[reportArgumentType] - as who is not type-checked may
        assert jobqueue.current_service() is service


def test_every_method_is_a_function():
    """What an application does with a service it can do by a function with the same parameters."""
    methods = {
        name: method
        for protocol in inspect.getmro(Service)
        for name, method in vars(protocol).items()
        if not name.startswith("_") and name not in NOT_FUNCTIONS
    }
    assert len(methods) > 30
    for name, method in methods.items():
        [_, *parameters] = inspect.signature(method).parameters.values()
        assert [*inspect.signature(getattr(jobqueue, name)).parameters.values()] == parameters, name


def test_functions_add_to_the_current_service(service):
    """What is added by functions is in the service, and the functions read it from there."""
    job = jobqueue.add_job(Job.new("t", 1))
    bundle = jobqueue.add_bundle(JobBundle.new("b", [JobDesc(2, type="u")]))
    assert {*service.get_all_jobs_to_do()} == {*jobqueue.get_all_jobs_to_do()} == {job, *bundle.jobs}
    assert service.get_job(job.id) == jobqueue.get_job(job.id) == job
    assert service.get_job_bundle(bundle.id) == jobqueue.get_job_bundle(bundle.id) == bundle
    assert jobqueue.get_status() == service.get_status()
    assert jobqueue.get_status().num_jobs == 2


def test_functions_manage_what_is_in_the_current_service(service):
    """What functions list, reset and delete is what is in the service."""
    failed, other = jobqueue.add_jobs([Job.new("t", number) for number in (1, 2)])
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(2, type="u")]))
    [claim] = jobqueue.claim("t")
    assert jobqueue.get_all_jobs_started_before(datetime.now(UTC)) == [failed]
    claim.fail("no")
    assert jobqueue.get_all_jobs_with_errors() == [failed]
    jobqueue.reset_job(failed.id)
    assert jobqueue.reset_jobs([failed.id, other.id]) == 2
    assert service.get_all_jobs_with_errors() == []
    [claim] = jobqueue.claim("t")
    claim.finish()
    assert jobqueue.delete_finished_jobs() == 1
    jobqueue.delete_job(other.id)
    jobqueue.delete_job_bundle(bundle.id)
    assert service.get_status().is_zero


def test_what_is_not_there_cannot_be_managed(service):
    """What acts on a single id raises when nothing has it, or returns False; what takes many says that it was none."""
    for act in (jobqueue.reset_job, jobqueue.delete_job):
        with pytest.raises(JobNotFoundError):
            act(new_id())
    with pytest.raises(JobBundleNotFoundError):
        jobqueue.delete_job_bundle(new_id())
    assert [act(new_id()) for act in (jobqueue.cancel_job, jobqueue.replay_job)] == [False, False]
    assert not jobqueue.reschedule_job(new_id(), None)
    assert jobqueue.delete_jobs_of_type("t") == jobqueue.delete_job_bundles_from_origin("o") == 0


def test_a_closed_service_ignores_nothing():
    """Whoever adds to a closed service is told so, although what he adds would be ignored."""
    service = jobqueue.connect("memory://", origin="tests")
    service.close()
    with ignore_jobs() as jobs, ignore_job_bundles() as bundles:
        with pytest.raises(ClosedError):
            service.add_job(Job.new("t", 1))
        with pytest.raises(ClosedError):
            service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t")]))
    assert jobs == bundles == []


# --- running a job


@pytest.mark.parametrize("error", [None, ValueError("no")])
def test_do_job_leaves_the_job_as_it_is(service, error):
    """A job that is run without a database has neither started nor stopped, and is in no queue."""

    def work(_: int) -> int:
        if error is not None:
            raise error
        return 2

    registry = Registry()
    registry.register_func_for_job_type("t", work)
    job = Job.new("t", 1)
    before = attrs.asdict(job)
    if error is None:
        assert jobqueue.do_job(job, registry) == 2
    else:
        with pytest.raises(ValueError, match="no"):
            jobqueue.do_job(job, registry)
    assert attrs.asdict(job) == before
    with pytest.raises(JobNotFoundError):
        service.get_job(job.id)
