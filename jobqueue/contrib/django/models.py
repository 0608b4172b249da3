"""The queue's tables as models, to be queried.

They are made by the queue's own migrations, and written by its service.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Never, TypeVar

from django.db import models

from jobqueue.contrib.django.reading import JobManager, QueueManager, refuse
from jobqueue.contrib.django.tables import table

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from uuid import UUID

    _T = TypeVar("_T")

    # What is set and what is got, which Django itself does not say.
    _Id = models.UUIDField[UUID, UUID]
    _MaybeId = models.UUIDField[UUID | None, UUID | None]
    _Text = models.TextField[str, str]
    _MaybeText = models.TextField[str | None, str | None]
    _Number = models.IntegerField[int, int]
    _Moment = models.DateTimeField[datetime, datetime]
    _MaybeMoment = models.DateTimeField[datetime | None, datetime | None]
    _MaybeDuration = models.DurationField[timedelta | None, timedelta | None]
    _Json = models.JSONField[Any, Any]
    _Flag = models.BooleanField[bool, bool]
    _ForeignKey = models.ForeignKey[_T, _T]

__all__ = ["ArchivedJob", "Job", "JobBundle", "PausedType", "Schedule", "ScheduleTick"]


class ReadOnly(models.Model):
    """A row that the service writes."""

    written_by: ClassVar = "the service"

    objects: "ClassVar[QueueManager[Any]]" = QueueManager()

    class Meta:
        """No table. What Django does by itself, as for related rows and deferred columns, goes by ``objects``, too."""

        abstract = True
        base_manager_name = "objects"

    def save(self, *_: Any, **__: Any) -> Never:
        """Refuse."""
        refuse(type(self).__name__, self.written_by)

    def save_base(self, *_: Any, **__: Any) -> Never:
        """Refuse."""
        refuse(type(self).__name__, self.written_by)

    def delete(self, *_: Any, **__: Any) -> Never:
        """Refuse."""
        refuse(type(self).__name__, self.written_by)


class JobBundle(ReadOnly):
    """Jobs that were added together; its members are ``jobs``."""

    written_by: ClassVar = "jobqueue.add_bundle and jobqueue.delete_job_bundle"

    id: "_Id" = models.UUIDField(primary_key=True)
    type: "_Text" = models.TextField()
    origin: "_Text" = models.TextField()
    num_jobs: "_Number" = models.IntegerField("members")
    num_jobs_stopped: "_Number" = models.IntegerField("members that have stopped")
    stopped_at: "_MaybeMoment" = models.DateTimeField(null=True)
    on_stopped: "_Json" = models.JSONField("job to add at its completion", null=True)
    delete_when_succeeded: "_Flag" = models.BooleanField()
    updated_at: "_Moment" = models.DateTimeField()
    created_at: "_Moment" = models.DateTimeField()

    class Meta:  # pyright: ignore[reportIncompatibleVariableOverride] - Django's way
        """Unmanaged."""

        managed = False
        db_table = table("job_bundle")
        verbose_name = "bundle"
        default_permissions = ("view", "delete")

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class _JobColumns(ReadOnly):
    """What jobs have in the queue and in the archive."""

    id: "_Id" = models.UUIDField(primary_key=True)
    type: "_Text" = models.TextField()
    payload: "_Json" = models.JSONField()
    origin: "_Text" = models.TextField()
    priority: "_Number" = models.BigIntegerField()
    max_retry_count: "_Number" = models.IntegerField("retries")
    current_retry_count: "_Number" = models.IntegerField("retries so far")
    run_count: "_Number" = models.IntegerField("runs")
    rescue_count: "_Number" = models.IntegerField("times that its worker died")
    retry_policy: "_Json" = models.JSONField(null=True)
    start_at: "_MaybeMoment" = models.DateTimeField(null=True)
    started_at: "_MaybeMoment" = models.DateTimeField(null=True)
    stopped_at: "_MaybeMoment" = models.DateTimeField(null=True)
    cancelled_at: "_MaybeMoment" = models.DateTimeField(null=True)
    claimed_by: "_MaybeText" = models.TextField("worker", null=True)
    error_msg: "_MaybeText" = models.TextField("error", null=True)
    error_data: "_Json" = models.JSONField(null=True)
    attempt_errors: "_Json" = models.JSONField(null=True)
    progress: "_Json" = models.JSONField(null=True)
    result: "_Json" = models.JSONField(null=True)
    updated_at: "_Moment" = models.DateTimeField()
    created_at: "_Moment" = models.DateTimeField()

    objects: "ClassVar[JobManager[Any]]" = JobManager()  # pyright: ignore[reportIncompatibleVariableOverride] - as below

    class Meta:  # pyright: ignore[reportIncompatibleVariableOverride] - Django's way
        """No table."""

        abstract = True

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class Job(_JobColumns):
    """A job in the queue; ``state`` is what its columns amount to."""

    written_by: ClassVar = (
        "jobqueue.enqueue, and cancel_job, reschedule_job, replay_job, reset_job or delete_job of jobqueue"
    )

    bundle: "_ForeignKey[JobBundle | None]" = models.ForeignKey(
        JobBundle, models.DO_NOTHING, null=True, related_name="jobs", db_constraint=False, db_index=False
    )
    completes_bundle: "_ForeignKey[JobBundle | None]" = models.ForeignKey(
        JobBundle, models.DO_NOTHING, null=True, related_name="completion_jobs", db_constraint=False, db_index=False
    )
    worker_alive_at: "_MaybeMoment" = models.DateTimeField("last sign of its worker", null=True)
    unique_key: "_MaybeText" = models.TextField(null=True)
    unique_key_spent: "_MaybeText" = models.TextField(null=True)
    unique_for: "_MaybeText" = models.TextField(null=True)
    unique_until: "_MaybeMoment" = models.DateTimeField(null=True)

    class Meta:  # pyright: ignore[reportIncompatibleVariableOverride] - Django's way
        """Unmanaged."""

        managed = False
        db_table = table("job")
        verbose_name = "job"
        default_permissions = ("view", "delete")
        permissions: ClassVar = [
            ("replay_job", "Can replay failed jobs"),
            ("reset_job", "Can reset jobs"),
            ("cancel_job", "Can cancel jobs"),
        ]


class ArchivedJob(_JobColumns):
    """A job that retention has moved out of the queue."""

    written_by: ClassVar = "the retention of workers"

    bundle_id: "_MaybeId" = models.UUIDField(null=True)
    completes_bundle_id: "_MaybeId" = models.UUIDField(null=True)
    archived_at: "_Moment" = models.DateTimeField()

    class Meta:  # pyright: ignore[reportIncompatibleVariableOverride] - Django's way
        """Unmanaged."""

        managed = False
        db_table = table("job_archive")
        verbose_name = "archived job"
        default_permissions = ("view",)


class Schedule(ReadOnly):
    """What enqueues jobs again and again; what became of its last ticks is in ``ticks``."""

    written_by: ClassVar = "add_schedule, change_schedule, pause_schedule or remove_schedule of the service"

    name: "_Text" = models.TextField(primary_key=True)
    type: "_Text" = models.TextField("type of its jobs")
    payload: "_Json" = models.JSONField()
    cron: "_MaybeText" = models.TextField(null=True)
    every: "_MaybeDuration" = models.DurationField(null=True)
    tz: "_Text" = models.TextField("time zone")
    start_at: "_MaybeMoment" = models.DateTimeField(null=True)
    missed: "_Text" = models.TextField()
    overlap: "_Text" = models.TextField()
    priority: "_Number" = models.BigIntegerField()
    max_retry_count: "_Number" = models.IntegerField("retries")
    retry_policy: "_Json" = models.JSONField(null=True)
    origin: "_Text" = models.TextField()
    next_tick_at: "_MaybeMoment" = models.DateTimeField("next tick", null=True)
    paused_at: "_MaybeMoment" = models.DateTimeField(null=True)
    updated_at: "_Moment" = models.DateTimeField()
    created_at: "_Moment" = models.DateTimeField()

    class Meta:  # pyright: ignore[reportIncompatibleVariableOverride] - Django's way
        """Unmanaged."""

        managed = False
        db_table = table("schedule")
        verbose_name = "schedule"
        default_permissions = ("view", "delete")
        permissions: ClassVar = [
            ("pause_schedule", "Can pause and resume schedules"),
            ("run_schedule", "Can run schedules now"),
        ]

    def __str__(self) -> str:
        return self.name


class ScheduleTick(ReadOnly):
    """What has become of a tick of a schedule."""

    written_by: ClassVar = "the workers"

    pk = models.CompositePrimaryKey("schedule", "tick_at", "by_hand")
    schedule: "_ForeignKey[Schedule]" = models.ForeignKey(
        Schedule,
        models.DO_NOTHING,
        db_column="schedule_name",
        related_name="ticks",
        db_constraint=False,
        db_index=False,
    )
    tick_at: "_Moment" = models.DateTimeField()
    by_hand: "_Flag" = models.BooleanField()
    through_at: "_MaybeMoment" = models.DateTimeField(null=True)
    job: "_ForeignKey[Job | None]" = models.ForeignKey(
        Job, models.DO_NOTHING, null=True, related_name="+", db_constraint=False, db_index=False
    )
    skipped: "_MaybeText" = models.TextField(null=True)
    noted_at: "_Moment" = models.DateTimeField()

    class Meta:  # pyright: ignore[reportIncompatibleVariableOverride] - Django's way
        """Unmanaged."""

        managed = False
        db_table = table("schedule_tick")
        verbose_name = "tick"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.schedule.name} {self.tick_at}"


class PausedType(ReadOnly):
    """A type of jobs, or a pattern of types, that nobody claims for a while."""

    written_by: ClassVar = "jobqueue.pause and jobqueue.resume"

    type: "_Text" = models.TextField("type or pattern", primary_key=True)
    until: "_MaybeMoment" = models.DateTimeField(null=True)
    reason: "_MaybeText" = models.TextField(null=True)
    paused_at: "_Moment" = models.DateTimeField()
    back_off: "_MaybeDuration" = models.DurationField(null=True)

    class Meta:  # pyright: ignore[reportIncompatibleVariableOverride] - Django's way
        """Unmanaged."""

        managed = False
        db_table = table("paused_type")
        verbose_name = "paused type"
        default_permissions = ("view", "add", "delete")

    def __str__(self) -> str:
        return self.type
