"""The queue's tables as models."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jobqueue import Job, JobBundle, JobDesc, State
from jobqueue.queue_service import QueueService


@pytest.fixture
def models(project: str) -> Any:
    """The module."""
    from jobqueue.contrib.django import models

    return models


@pytest.fixture
def in_each_state(project_service: QueueService) -> dict[State, Job]:
    """A job in each state."""
    service = project_service
    jobs = {state: service.enqueue(state.value, {"state": state.value}) for state in State}
    service.cancel_job(jobs[State.CANCELLED].id)
    service.reschedule_job(jobs[State.SCHEDULED].id, datetime.now(UTC) + timedelta(hours=1))
    [failed] = service.claim(["failed"])
    failed.fail(ValueError("broken"))
    [succeeded] = service.claim(["succeeded"])
    succeeded.finish(1)
    retrying = service.add_job(Job.new("retrying", 1, max_retry_count=1))
    service.delete_job(jobs[State.RETRYING].id)
    jobs[State.RETRYING] = retrying
    [claim] = service.claim(["retrying"])
    claim.fail(ValueError("again"))
    [running] = service.claim(["running"])
    service.running = running  # type: ignore[attr-defined] - kept alive by somebody
    return jobs


def test_states_are_those_of_the_service(models: Any, in_each_state: dict[State, Job], project_service: QueueService):
    """Each job is in the state that the service says, and is found by it, and by no other."""
    for state, job in in_each_state.items():
        assert models.Job.objects.get(id=job.id).state == state == project_service.get_job(job.id).state
        assert [row.pk for row in models.Job.objects.filter(state=state)] == [job.id]
        assert [row.pk for row in models.Job.objects.filter(state=state.value)] == [job.id]
        assert job.id not in {row.pk for row in models.Job.objects.exclude(state=state)}
        assert models.Job.objects.exclude(state=state).count() == len(State) - 1
        assert list(models.Job.objects.values_list("state", flat=True).filter(id=job.id)) == [state]
    project_service.running.release()  # type: ignore[attr-defined] - as above


def test_several_states_are_found_together(models: Any, in_each_state: dict[State, Job], project_service: QueueService):
    """``state__in`` finds those in any of them; a state that is none is an error."""
    from django.db.models import Count

    found = models.Job.objects.filter(state__in=["failed", State.CANCELLED])
    assert {row.pk for row in found} == {in_each_state[State.FAILED].id, in_each_state[State.CANCELLED].id}
    counted = models.Job.objects.order_by().values("state").annotate(number=Count("id"))
    assert {row["state"]: row["number"] for row in counted} == dict.fromkeys(map(str, State), 1)
    with pytest.raises(ValueError, match="'broken' is not a valid State"):
        models.Job.objects.filter(state="broken")
    project_service.running.release()  # type: ignore[attr-defined]


def test_states_are_conditions_on_columns(models: Any):
    """What is asked of states is asked of columns, so that the database can use its statistics and indexes."""
    where = str(models.Job.objects.filter(state="failed").query).partition(" WHERE ")[2]
    assert "CASE" not in where
    assert '"worker"."job"."error_msg" IS NOT NULL' in where


def test_payloads_are_queried(models: Any, project_service: QueueService):
    """Payloads are JSON to the ORM."""
    mail = project_service.enqueue("mail", {"to": "ann@example.com", "size": 3})
    project_service.enqueue("mail", {"to": "bob@example.com", "size": 5})
    assert models.Job.objects.get(payload__to="ann@example.com").pk == mail.id
    assert models.Job.objects.filter(payload__size__gt=3).count() == 1
    assert models.Job.objects.get(id=mail.id).payload == {"to": "ann@example.com", "size": 3}


def test_bundles_are_joined(models: Any, project_service: QueueService):
    """Jobs and bundles refer to each other."""
    from django.db.models import Count

    bundle = project_service.add_bundle(
        JobBundle.new("import", [JobDesc(1, type="part"), JobDesc(2, type="part")], on_stopped=JobDesc(3, type="end"))
    )
    assert models.JobBundle.objects.get(jobs__payload=2).pk == bundle.id
    assert models.JobBundle.objects.get().jobs.count() == 2
    assert models.Job.objects.select_related("bundle").filter(bundle__type="import").first().bundle.num_jobs == 2
    of_imports = models.Job.objects.filter(bundle__type="import").order_by()
    assert list(of_imports.values("state").annotate(number=Count("id"))) == [{"state": "available", "number": 2}]
    for claim in project_service.claim(["part"], 2):
        claim.finish()
    assert models.JobBundle.objects.get().completion_jobs.get().type == "end"


def test_everything_else_is_read(models: Any, project_service: QueueService):
    """Schedules with their ticks, paused types and the archive are models, too."""
    project_service.add_schedule("hourly", "report", {"a": 1}, every=timedelta(hours=1))
    job = project_service.run_schedule_now("hourly")
    project_service.pause("mail", reason="the relay is down")
    schedule = models.Schedule.objects.get(name="hourly")
    assert (schedule.every, schedule.payload) == (timedelta(hours=1), {"a": 1})
    assert schedule.ticks.get().job.pk == job.id
    assert models.ScheduleTick.objects.get(schedule__type="report").by_hand
    assert models.PausedType.objects.get(type="mail").reason == "the relay is down"
    assert models.ArchivedJob.objects.count() == 0


@pytest.mark.parametrize("name", ["ArchivedJob", "Job", "JobBundle", "PausedType", "Schedule", "ScheduleTick"])
def test_models_have_the_columns_of_their_tables(models: Any, project: str, name: str):
    """No model names a column that its table has not; what the models leave out is the business of claims."""
    model = getattr(models, name)
    with psycopg.connect(project) as connection:
        rows = connection.execute(
            "select column_name from information_schema.columns where table_schema = 'worker' and table_name = %s",
            [model._meta.db_table.split('"')[3]],
        ).fetchall()
    columns = {column for (column,) in rows}
    named = {field.column for field in model._meta.get_fields() if getattr(field, "column", None)}
    assert named <= columns
    assert columns - named <= {"claim_id", "lease", "version", "declared"}
    assert list(model.objects.all()) == []


class Elsewhere:
    """A router that has all models in another database."""

    def db_for_read(self, model: Any, **_: Any) -> str:
        return "lite"

    db_for_write = db_for_read


@pytest.mark.parametrize(
    "read",
    [
        lambda models: models.Job.objects.get().bundle.type,
        lambda models: models.Job.objects.select_related("bundle").get().bundle.type,
        lambda models: models.JobBundle.objects.get().jobs.get().bundle.type,
        lambda models: models.JobBundle.objects.prefetch_related("jobs").get().jobs.all()[0].bundle.type,
        lambda models: models.JobBundle.objects.defer("type").get().type,
        lambda models: models.JobBundle.objects.get().refresh_from_db() or "import",
    ],
)
def test_no_router_is_asked(models: Any, project_service: QueueService, read: Any):
    """All that is read comes from the queue's database, what belongs to a row, too."""
    from django.test import override_settings

    project_service.add_bundle(JobBundle.new("import", [JobDesc(1, type="part")]))
    with override_settings(DATABASE_ROUTERS=[Elsewhere()]):
        assert read(models) == "import"


@pytest.mark.parametrize(
    "write",
    [
        lambda bundle, job: bundle.jobs.add(job),
        lambda bundle, job: bundle.jobs.add(job, bulk=False),
        lambda bundle, job: bundle.jobs.set([job]),
        lambda bundle, job: bundle.jobs.remove(bundle.jobs.get()),
        lambda bundle, job: bundle.jobs.clear(),
        lambda bundle, job: bundle.jobs.create(type="t"),
        lambda bundle, job: job.save_base(),
        lambda bundle, job: type(job)._base_manager.update(priority=1),
    ],
)
def test_relations_are_not_written(models: Any, project_service: QueueService, write: Any):
    """What belongs to a bundle is as read-only as the jobs themselves."""
    project_service.add_bundle(JobBundle.new("import", [JobDesc(1, type="part")]))
    other = project_service.enqueue("t", 1)
    before = list(models.Job.objects.order_by("id").values())
    with pytest.raises(TypeError, match=r"Job is read-only"):
        write(models.JobBundle.objects.get(), models.Job.objects.get(id=other.id))
    assert list(models.Job.objects.order_by("id").values()) == before


@pytest.mark.parametrize(
    "write",
    [
        lambda jobs: jobs.model(id=uuid4()).save(),
        lambda jobs: jobs.get().save(),
        lambda jobs: jobs.get().delete(),
        lambda jobs: jobs.all().delete(),
        lambda jobs: jobs.update(priority=1),
        lambda jobs: jobs.filter(state="available").update(priority=1),
        lambda jobs: jobs.create(type="t"),
        lambda jobs: jobs.bulk_create([jobs.model(id=uuid4())]),
        lambda jobs: jobs.bulk_update([jobs.get()], ["priority"]),
        lambda jobs: jobs.get_or_create(type="t"),
        lambda jobs: jobs.update_or_create(type="t"),
    ],
)
def test_the_orm_does_not_write(models: Any, project_service: QueueService, write: Any):
    """Whatever would write is refused, and the message names who does it instead."""
    job = project_service.enqueue("t", 1)
    with pytest.raises(TypeError, match=r"Job is read-only, .* use jobqueue\.enqueue, and cancel_job"):
        write(models.Job.objects)
    assert project_service.get_job(job.id).priority == 0


def test_nothing_is_deleted_with_what_refers_to_it(models: Any, project_service: QueueService):
    """A bundle is not deleted by the ORM, nor are its members."""
    project_service.add_bundle(JobBundle.new("import", [JobDesc(1, type="part")]))
    with pytest.raises(TypeError, match="JobBundle is read-only"):
        models.JobBundle.objects.all().delete()
    with pytest.raises(TypeError, match="JobBundle is read-only"):
        models.JobBundle.objects.get().delete()
    assert models.Job.objects.count() == 1


def test_another_schema_is_named(project: str):
    """Tables are those of the schema that JOBQUEUE names, whatever characters it has."""
    from django.test import override_settings

    from jobqueue.contrib.django.configuration import configuration
    from jobqueue.contrib.django.tables import table

    with override_settings(JOBQUEUE={"SCHEMA": 'my "queue'}):
        assert configuration().schema == 'my "queue'
        assert table.__wrapped__("job") == '"my ""queue"."job"'


def test_migrations_name_the_tables_of_the_models(project: str):
    """Whenever migrations are first imported, by an overridden JOBQUEUE, too, their tables are those of the models."""
    from django.test import override_settings

    from jobqueue.contrib.django.models import Job
    from jobqueue.contrib.django.tables import table

    with override_settings(JOBQUEUE={"SCHEMA": "another"}):
        assert table("job") == Job._meta.db_table


def test_permissions_are_made(project: str):
    """Each act has a permission that can be given to users; there is none to add or change jobs."""
    from django.contrib.auth.models import Permission

    names = set(Permission.objects.filter(content_type__app_label="jobqueue").values_list("codename", flat=True))
    assert names == {
        *("view_job", "delete_job", "replay_job", "reset_job", "cancel_job", "view_archivedjob"),
        *("view_jobbundle", "delete_jobbundle", "view_pausedtype", "add_pausedtype", "delete_pausedtype"),
        *("view_schedule", "delete_schedule", "pause_schedule", "run_schedule"),
    }
