"""What can be done in the admin: by the service, by those who may."""

import html
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from jobqueue import Job, JobBundle, JobBundleNotFoundError, JobDesc, JobNotFoundError, LostClaimError, State
from jobqueue.context import current_service
from jobqueue.queue_service import QueueService

JOBS = "/admin/jobqueue/job/"


def failed(service: QueueService) -> Job:
    job = service.enqueue("broken", 1)
    with service.claim(["broken"])[0] as claim:
        claim.fail(ValueError("broken"))
    return job


def messages_of(response: Any) -> list[str]:
    assert response.status_code == 200, response.status_code
    found = re.findall(r'<li class="(success|warning|error)">(.*?)</li>', response.content.decode(), re.DOTALL)
    return [f"{level}: {html.unescape(text)}" for level, text in found]


def act(client: Any, action: str, *jobs: Any, place: str = JOBS, **more: str) -> Any:
    selected = [str(getattr(job, "id", job)) for job in jobs]
    return client.post(place, {"action": action, "_selected_action": selected, **more}, follow=True)


def test_replay(client_of: Callable[..., Any], project_service: QueueService):
    """Failed jobs are replayed; with how many of the others nothing was done is told."""
    jobs = [failed(project_service), project_service.enqueue("t", 1), failed(project_service)]
    said = messages_of(act(client_of(["view_job", "replay_job"]), "replay", *jobs))
    assert said == ["success: 2 jobs were replayed.", "warning: 1 job was not replayed: only failed jobs are."]
    assert [project_service.get_job(job.id).state for job in jobs] == [State.AVAILABLE] * 3


def test_cancel(client_of: Callable[..., Any], project_service: QueueService):
    """Jobs that have not stopped are cancelled."""
    jobs = [project_service.enqueue("t", 1), failed(project_service), uuid4()]
    said = messages_of(act(client_of(["view_job", "cancel_job"]), "cancel", *jobs))
    # Django does not hand on what is not there.
    assert said == [
        "success: 1 job was cancelled.",
        "warning: 1 job was not cancelled: what has stopped or is gone cannot be.",
    ]
    assert project_service.get_job(jobs[0].id).state == State.CANCELLED
    assert project_service.get_job(jobs[1].id).state == State.FAILED


def test_a_cancelled_job_is_taken_from_its_worker(client_of: Callable[..., Any], project_service: QueueService):
    """It is the service that cancels: the claim is lost."""
    job = project_service.enqueue("t", 1)
    [claim] = project_service.claim(["t"])
    assert messages_of(act(client_of(["view_job", "cancel_job"]), "cancel", job)) == ["success: 1 job was cancelled."]
    with pytest.raises(LostClaimError, match="was taken away"):
        claim.finish(1)


def test_reset(client_of: Callable[..., Any], project_service: QueueService):
    """Jobs are reset, whatever their state."""
    jobs = [failed(project_service), project_service.enqueue("t", 1)]
    assert messages_of(act(client_of(["view_job", "reset_job"]), "reset", *jobs)) == ["success: 2 jobs were reset."]
    assert project_service.get_job(jobs[0].id).state == State.AVAILABLE


def test_delete(client_of: Callable[..., Any], project_service: QueueService):
    """Django asks first; then the service deletes, also out of the bundle's counts."""
    bundle = project_service.add_bundle(JobBundle.new("import", [JobDesc(n, type="part") for n in range(3)]))
    client = client_of(["view_job", "delete_job"])
    asked = act(client, "delete_selected", *bundle.jobs[:2])
    assert b"Are you sure" in asked.content
    assert project_service.get_job_bundle(bundle.id).num_jobs == 3
    act(client, "delete_selected", *bundle.jobs[:2], post="yes")
    assert project_service.get_job_bundle(bundle.id).num_jobs == 1


def test_delete_one(client_of: Callable[..., Any], project_service: QueueService):
    """The page of a job deletes it, too."""
    job = project_service.enqueue("t", 1)
    client = client_of(["view_job", "delete_job"])
    assert b"Are you sure" in client.get(f"{JOBS}{job.id}/delete/").content
    client.post(f"{JOBS}{job.id}/delete/", {"post": "yes"})
    with pytest.raises(JobNotFoundError):
        project_service.get_job(job.id)


@pytest.mark.parametrize(
    ("permission", "made", "does"),
    [
        ("replay", failed, State.AVAILABLE),
        ("cancel", lambda service: service.enqueue("t", 1), State.CANCELLED),
        ("reset", failed, State.AVAILABLE),
    ],
)
def test_the_buttons_of_a_page(
    client_of: Callable[..., Any],
    project_service: QueueService,
    permission: str,
    made: Callable[[QueueService], Job],
    does: State,
):
    """A job's page has a button for each act that the user may do, and shows what came of it."""
    job = made(project_service)
    client = client_of(["view_job", f"{permission}_job"])
    page = client.get(f"{JOBS}{job.id}/change/").content.decode()
    assert f'action="{JOBS}{job.id}/act/{permission}/"' in page
    assert page.count("/act/") == 1
    response = client.post(f"{JOBS}{job.id}/act/{permission}/", follow=True)
    assert response.redirect_chain == [(f"{JOBS}{job.id}/change/", 302)]
    assert len(messages_of(response)) == 1
    assert project_service.get_job(job.id).state == does


def test_buttons_are_of_use(client_of: Callable[..., Any], project_service: QueueService):
    """A job's page offers what can be done with it in its state; what came too late is told."""
    client = client_of(None)
    offered = {}
    for job in (failed(project_service), project_service.enqueue("t", 1)):
        page = client.get(f"{JOBS}{job.id}/change/").content.decode()
        offered[job.type] = re.findall(r"/act/(\w+)/", page)
    assert offered == {"broken": ["replay", "reset"], "t": ["cancel", "reset"]}
    late = client.post(f"{JOBS}{job.id}/act/replay/", follow=True)
    assert messages_of(late) == ["warning: 1 job was not replayed: only failed jobs are."]


@pytest.mark.parametrize("name", ["replay", "cancel", "reset", "delete_selected"])
@pytest.mark.parametrize("permissions", [["view_job"], ["view_job", "replay_schedule"]])
def test_who_may_not_does_nothing(
    client_of: Callable[..., Any], project_service: QueueService, name: str, permissions: list[str]
):
    """Without the permission of its name an act is neither offered nor done."""
    job = failed(project_service)
    client = client_of([each for each in permissions if each != "replay_schedule"])
    act(client, name, job, post="yes")
    assert client.post(f"{JOBS}{job.id}/act/{name}/").status_code in {403, 404}
    assert client.post(f"{JOBS}{job.id}/delete/", {"post": "yes"}).status_code == 403
    assert project_service.get_job(job.id).state == State.FAILED


def test_acts_need_a_form_of_ours(client_of: Callable[..., Any], project_service: QueueService):
    """A link, as a login leads to it, does nothing but show the job; nor does the form of another site."""
    job = failed(project_service)
    place = f"{JOBS}{job.id}/act/replay/"
    response = client_of(None).get(place)
    assert (response.status_code, response["Location"]) == (302, f"{JOBS}{job.id}/change/")
    assert client_of(None, enforce_csrf_checks=True).post(place).status_code == 403
    assert project_service.get_job(job.id).state == State.FAILED


def test_what_is_not_there_is_said(client_of: Callable[..., Any], project_service: QueueService):
    """An unknown job or act is not found, and who is not logged in is sent to do that."""
    job = project_service.enqueue("t", 1)
    client = client_of(None)
    assert client.post(f"{JOBS}{uuid4()}/act/replay/").status_code == 404
    assert client.post(f"{JOBS}{job.id}/act/explode/").status_code == 404
    client.logout()
    assert "/login/" in client.post(f"{JOBS}{job.id}/act/replay/")["Location"]


def test_jobs_are_neither_added_nor_changed(client_of: Callable[..., Any], project_service: QueueService):
    """Not even by who may everything."""
    job = project_service.enqueue("t", 1)
    client = client_of(None)
    assert client.get(f"{JOBS}add/").status_code == 403
    assert client.post(f"{JOBS}{job.id}/change/", {"priority": "5"}).status_code == 403
    assert project_service.get_job(job.id).priority == 0


def test_too_many_are_refused(
    client_of: Callable[..., Any], project_service: QueueService, monkeypatch: pytest.MonkeyPatch
):
    """Of all that a list is of, no more than it counts are acted on at once; the message says what to do instead."""
    from jobqueue.contrib.django.admin import acts, deleting

    for module in (acts, deleting):
        monkeypatch.setattr(module, "MOST_COUNTED", 2)
    jobs = project_service.add_jobs([Job.new("t", number) for number in range(3)])
    client = client_of(None)
    [said] = messages_of(act(client, "cancel", jobs[0], select_across="1"))
    assert "Nothing was cancelled: more than" in said
    refused = act(client, "delete_selected", jobs[0], select_across="1", post="yes")
    assert project_service.get_status().num_jobs == 3
    assert b"narrow the list down" in refused.content


def test_all_of_a_list(client_of: Callable[..., Any], project_service: QueueService):
    """Fewer are, by the filters of the list."""
    jobs = [failed(project_service) for _ in range(3)]
    other = project_service.enqueue("t", 1)
    client = client_of(None)
    said = messages_of(act(client, "replay", jobs[0], select_across="1", place=f"{JOBS}?state=failed"))
    assert said == ["success: 3 jobs were replayed."]
    assert project_service.get_job(other.id).state == State.AVAILABLE


def test_what_the_service_refuses_is_told(
    client_of: Callable[..., Any], project_service: QueueService, monkeypatch: pytest.MonkeyPatch
):
    """An error of the service is a message, not a page of errors."""
    from jobqueue import UnavailableError

    def unavailable(*_: Any, **__: Any) -> None:
        raise UnavailableError("the database does not answer")

    job = failed(project_service)
    client = client_of(None)
    monkeypatch.setattr(project_service, "replay_jobs", unavailable)
    assert messages_of(act(client, "replay", job)) == ["error: Not all were replayed: the database does not answer"]


def test_bundles_are_deleted(client_of: Callable[..., Any], project_service: QueueService):
    """With their members, by the service; Django asks first, and says how many these are."""
    parts = [JobDesc(n, type="part") for n in range(2)]
    bundles = [project_service.add_bundle(JobBundle.new("b", parts)) for _ in range(3)]
    client = client_of(["view_jobbundle", "delete_jobbundle"])
    asked = act(client, "delete_selected", *bundles[:2], place="/admin/jobqueue/jobbundle/").content.decode()
    assert re.findall(r"<li>(\w+: \d+)</li>", asked) == ["Bundles: 2", "Jobs: 4"]
    assert "Jobs: 2" in client.get(f"/admin/jobqueue/jobbundle/{bundles[0].id}/delete/").content.decode()
    act(client, "delete_selected", *bundles[:2], place="/admin/jobqueue/jobbundle/", post="yes")
    with pytest.raises(JobBundleNotFoundError):
        project_service.get_job_bundle(bundles[0].id)
    assert project_service.get_status().num_jobs == 2


def test_schedules(client_of: Callable[..., Any], project_service: QueueService):
    """They are paused, resumed, run and removed."""
    place = "/admin/jobqueue/schedule/"
    project_service.add_schedule("hourly", "report", every=timedelta(hours=1))
    client = client_of(["view_schedule", "pause_schedule", "run_schedule", "delete_schedule"])
    assert messages_of(act(client, "pause", "hourly", place=place)) == ["success: 1 schedule was paused."]
    assert project_service.get_schedule("hourly").paused
    assert messages_of(act(client, "resume", "hourly", place=place)) == ["success: 1 schedule was resumed."]
    assert not project_service.get_schedule("hourly").paused
    assert messages_of(act(client, "run", "hourly", place=place)) == ["success: 1 schedule was run."]
    assert [job.type for job in project_service.list_jobs()] == ["report"]
    act(client, "delete_selected", "hourly", place=place, post="yes")
    assert project_service.get_schedules() == []


def test_types_are_paused_and_resumed(client_of: Callable[..., Any], project_service: QueueService):
    """To add a row is to pause, to delete it is to resume."""
    place = "/admin/jobqueue/pausedtype/"
    client = client_of(["view_pausedtype", "add_pausedtype", "delete_pausedtype"])
    client.post(f"{place}add/", {"type": "mail:*", "until_0": "2100-01-01", "until_1": "00:00:00", "reason": "down"})
    [paused] = project_service.paused_types()
    page = client.get(f"{place}mail_3A*/change/").content.decode()
    assert "down" in page
    assert "field-paused_at" in page
    assert (paused.type, paused.reason, paused.until is not None and paused.until.year) == ("mail:*", "down", 2100)
    wrong = client.post(f"{place}add/", {"type": "mail*"})
    assert b"neither a job type" in wrong.content
    late = client.post(f"{place}add/", {"type": "mail", "until_0": "2001-01-01", "until_1": "00:00:00"})
    assert b"has passed" in late.content
    client.post(f"{place}mail_3A*/delete/", {"post": "yes"})
    assert project_service.paused_types() == []


def test_who_may_not_pause_does_not(client_of: Callable[..., Any], project_service: QueueService):
    """Pausing has a permission."""
    client = client_of(["view_pausedtype"])
    assert client.post("/admin/jobqueue/pausedtype/add/", {"type": "mail"}).status_code == 403
    assert project_service.paused_types() == []


def test_acts_are_logged(client_of: Callable[..., Any], project_service: QueueService):
    """What was done on a job's page is in the history of the admin."""
    from django.contrib.admin.models import LogEntry

    job = failed(project_service)
    client_of(None).post(f"{JOBS}{job.id}/act/replay/")
    assert [entry.change_message for entry in LogEntry.objects.filter(object_id=str(job.id))] == ["Replayed."]
    assert UUID(LogEntry.objects.get(object_id=str(job.id)).object_id) == job.id


@contextmanager
def refusing(conninfo: str, table: str, *, only: str | None = None) -> Iterator[None]:
    """Have the database refuse to add rows to *table*, and to delete them; or to delete those of the type *only*."""
    what, each = ("insert or delete", "statement") if only is None else ("delete", f"row when (old.type = '{only}')")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            "create function worker.refuse() returns trigger language plpgsql as "
            "$$ begin raise exception 'the disk is full'; end $$"
        )
        connection.execute(
            f"create trigger refuse before {what} on worker.{table} for each {each} "
            "execute function worker.refuse()".encode()
        )
        try:
            yield
        finally:
            connection.execute("drop function worker.refuse() cascade")


@pytest.mark.parametrize("place", [JOBS, "/admin/jobqueue/jobbundle/"])
def test_what_the_database_does_not_delete_is_told(
    client_of: Callable[..., Any], project_service: QueueService, project: str, place: str
):
    """An error of the database is a message on the page that was to delete; nothing is in the history, either."""
    from django.contrib.admin.models import LogEntry

    bundle = project_service.add_bundle(JobBundle.new("b", [JobDesc(1, type="part")]))
    row = bundle.id if "bundle" in place else bundle.jobs[0].id
    client = client_of(None)
    with refusing(project, "job"):
        one = client.post(f"{place}{row}/delete/", {"post": "yes"}, follow=True)
        several = act(client, "delete_selected", row, place=place, post="yes")
    for response in (one, several):
        [said] = messages_of(response)
        assert "error: Nothing was deleted: the database" in said
        assert "the disk is full" in said
    assert b"Are you sure" in one.content
    assert LogEntry.objects.count() == 0
    assert project_service.get_job_bundle(bundle.id).num_jobs == 1


@pytest.mark.parametrize("alias", ["default", "again"])
def test_all_that_was_selected_is_deleted_or_nothing(
    client_of: Callable[..., Any], project_service: QueueService, project: str, alias: str
):
    """Where one of several rows is not deleted, the others are not, whichever alias the queue is reached by."""
    from django.contrib.admin.models import LogEntry
    from django.test import override_settings

    bundles = [project_service.add_bundle(JobBundle.new(type, [JobDesc(1, type="part")])) for type in ("a", "b", "c")]
    place = "/admin/jobqueue/jobbundle/"
    with override_settings(JOBQUEUE={"DATABASE": alias}):
        client = client_of(None)
        with refusing(project, "job_bundle", only="b"):
            refused = act(client, "delete_selected", *bundles, place=place, post="yes")
        left = [current_service().get_job_bundle(each.id).type for each in bundles]
        noted = LogEntry.objects.count()
        deleted = act(client, "delete_selected", *bundles, place=place, post="yes")
    assert "error: Nothing was deleted: the database" in messages_of(refused)[0]
    assert (left, noted) == (["a", "b", "c"], 0)
    assert messages_of(deleted) == ["success: Successfully deleted 3 bundles."]
    assert LogEntry.objects.count() == 3
    assert current_service().get_status().num_jobs == 0


def test_what_the_database_does_not_pause_is_told(
    client_of: Callable[..., Any], project_service: QueueService, project: str
):
    """As is one that comes while a type is paused, or resumed."""
    place = "/admin/jobqueue/pausedtype/"
    client = client_of(None)
    project_service.pause("mail")
    with refusing(project, "paused_type"):
        paused = client.post(f"{place}add/", {"type": "report"}, follow=True)
        resumed = client.post(f"{place}mail/delete/", {"post": "yes"}, follow=True)
    assert "error: Nothing was paused: the database" in messages_of(paused)[0]
    assert "error: Nothing was deleted: the database" in messages_of(resumed)[0]
    assert [paused.type for paused in project_service.paused_types()] == ["mail"]
