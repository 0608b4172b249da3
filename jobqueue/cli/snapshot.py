"""What `jobqueue status` tells: a look at a queue, which is cheap however many jobs there are."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from jobqueue.counting import JobCounts
from jobqueue.inspecting import Activity, ConnectionCheck, SeenWorker
from jobqueue.models import State
from jobqueue.pauses import PausedType
from jobqueue.schedules import Schedule
from jobqueue.service import Service


@attrs.frozen(kw_only=True)
class Snapshot:
    """How a queue was at a moment, by this machine's clock."""

    at: datetime
    connection: ConnectionCheck
    counts: JobCounts
    oldest_due: Mapping[str, timedelta]
    activity: Activity
    paused: Sequence[PausedType]
    schedules: Sequence[Schedule]
    dead_for: timedelta

    @classmethod
    def of(cls, service: Service) -> "Snapshot":
        """Look at the queue of *service*. Raises BackendError."""
        return cls(
            connection=service.check_connection(),
            counts=service.count_jobs(),
            oldest_due=service.oldest_due_age(),
            activity=service.recent_activity(),
            paused=service.paused_types(),
            schedules=service.get_schedules(),
            dead_for=service.settings.dead_for,
            at=datetime.now(UTC),
        )

    def is_silent(self, worker: SeenWorker) -> bool:
        """Whether a process has jobs, and has not been heard of for so long that it may be dead."""
        return worker.num_running > 0 and worker.silent_for > self.dead_for

    def as_json(self) -> dict[str, Any]:
        """Return it as one JSON object, whose keys stay: times in seconds, moments in ISO 8601."""
        return {
            "at": self.at.isoformat(),
            "connection": {
                "backend": self.connection.backend,
                "server_version": self.connection.server_version,
                "is_read_only": self.connection.is_read_only,
                "is_pooled": self.connection.is_pooled,
                "round_trip_seconds": self.connection.round_trip.total_seconds(),
            },
            "jobs": {
                "total": self.counts.num_jobs,
                "by_state": _by_name(self.counts.by_state),
                "by_type": {job_type: _by_name(states) for job_type, states in self.counts.by_type_and_state.items()},
                "estimated_states": sorted(self.counts.estimated_states),
            },
            "oldest_due_seconds": {job_type: age.total_seconds() for job_type, age in self.oldest_due.items()},
            "throughput": {
                "stopped": self.activity.num_stopped,
                "failed": self.activity.num_failed,
                "within_seconds": self.activity.within.total_seconds(),
                "stopped_per_second": self.activity.per_second,
            },
            "workers": [
                {
                    "name": worker.name,
                    "running": worker.num_running,
                    "silent_seconds": worker.silent_for.total_seconds(),
                    "is_silent": self.is_silent(worker),
                }
                for worker in self.activity.workers
            ],
            "paused": [
                {
                    "type": paused.type,
                    "until": moment_or_none(paused.until),
                    "reason": paused.reason,
                    "paused_at": paused.paused_at.isoformat(),
                    "is_back_off": paused.is_back_off,
                }
                for paused in self.paused
            ],
            "schedules": [
                {
                    "name": schedule.name,
                    "type": schedule.type,
                    "cron": schedule.cron,
                    "every_seconds": None if schedule.every is None else schedule.every.total_seconds(),
                    "next_tick_at": moment_or_none(schedule.next_tick_at),
                    "paused_at": moment_or_none(schedule.paused_at),
                }
                for schedule in self.schedules
            ],
        }


def moment_or_none(moment: datetime | None) -> str | None:
    """Return a moment in ISO 8601, if there is one."""
    return None if moment is None else moment.isoformat()


def _by_name(numbers: Mapping[State, int]) -> dict[str, int]:
    return {str(state): numbers.get(state, 0) for state in State}
