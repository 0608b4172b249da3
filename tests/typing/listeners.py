"""What type checkers make of listeners: checked by mypy and pyright, never run."""
# pyright: reportUnnecessaryTypeIgnoreComment=error

from uuid import UUID

from jobqueue import Job, JobBundle, Service, ServiceListener
from jobqueue.events import JobStarted, ObservedEvent, RunEnded


class OnlyJobs(ServiceListener):
    """Overrides what is of interest, and nothing else."""

    def on_job_stopped(self, id: UUID, type: str, origin: str, will_retry: bool) -> None:
        return


class Duck:
    """Has the methods, whatever it derives from."""

    def on_job_stopped(self, id: UUID, type: str, origin: str, will_retry: bool) -> None:
        return

    def on_job_bundle_stopped(self, id: UUID, type: str, origin: str) -> None:
        return


class Half:
    """Lacks a method."""

    def on_job_stopped(self, id: UUID, type: str, origin: str, will_retry: bool) -> None:
        return


def hear_job(job: Job, will_retry: bool) -> str:
    return f"{job} {will_retry}"


def hear_bundle(bundle: JobBundle) -> None:
    assert bundle.jobs


def all_forms(service: Service) -> None:
    service.add_listener(OnlyJobs())
    service.add_listener(Duck())
    service.add_listener(Half())  # type: ignore[arg-type]
    service.add_job_stopped_listener(hear_job)
    service.add_job_stopped_listener(lambda job, will_retry: (job.id, will_retry))
    service.add_job_stopped_listener(hear_bundle)  # type: ignore[arg-type]
    service.add_job_bundle_stopped_listener(hear_bundle)
    service.add_job_bundle_stopped_listener(hear_job)  # type: ignore[arg-type]
    service.set_job_bundle_of_type_stopped_listener("b", hear_bundle)


def observe_start(event: JobStarted) -> None:
    event.job.payload_json.strip()


def observe_runs(event: JobStarted | RunEnded) -> None:
    event.job.payload_json.strip()


def observe_all(event: ObservedEvent) -> None:
    repr(event)


def observe(service: Service) -> None:
    service.add_observer(observe_start, JobStarted)
    service.add_observer(observe_runs, JobStarted, RunEnded)
    service.add_observer(observe_all)
    service.remove_observer(observe_start)
