"""The pages of the admin: what they show, and to whom."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from jobqueue import Job, JobBundle, JobDesc
from jobqueue.queue_service import QueueService

JOBS = "/admin/jobqueue/job/"
SCRIPT = "<script>alert('x')</script>"


def text_of(response: Any) -> str:
    assert response.status_code == 200, response.status_code
    return str(response.content.decode())


def rows_of(page: str) -> int:
    return len(re.findall(r'class="action-select"', page))


def fail_one(service: QueueService, error: Exception, **options: Any) -> Job:
    job = service.enqueue("broken", {"a": 1}, **options)
    with service.claim(["broken"])[0] as claim:
        claim.fail(error)
    return job


@pytest.fixture
def boss(client_of: Callable[..., Any]) -> Any:
    """A browser of somebody who may do everything."""
    return client_of(None)


def test_all_pages_are_there(boss: Any, project_service: QueueService):
    """The lists of the queue are on the first page, and open."""
    page = text_of(boss.get("/admin/"))
    for name in ("job", "jobbundle", "archivedjob", "schedule", "pausedtype"):
        assert f"/admin/jobqueue/{name}/" in page
        assert boss.get(f"/admin/jobqueue/{name}/").status_code == 200


def test_jobs_are_listed_the_newest_first(boss: Any, project_service: QueueService):
    """A line has the type, the state and the origin; there is nothing to add."""
    for name in ("first", "second", "third"):
        project_service.enqueue(name, 1, origin="shop")
    page = text_of(boss.get(JOBS))
    assert page.index(">third<") < page.index(">second<") < page.index(">first<")
    assert "jobqueue-available" in page
    assert f"{JOBS}add/" not in page


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=failed", {"broken"}),
        ("state=available", {"mail:send", "mail:fetch", "report"}),
        ("state=nonsense", {"broken", "mail:send", "mail:fetch", "report"}),
        ("type=report", {"report"}),
        ("type=mail:*", {"mail:send", "mail:fetch"}),
        ("type=mai", set()),
        ("origin=shop", {"report"}),
        ("added=hour", {"broken", "mail:send", "mail:fetch", "report"}),
        ("added=never", {"broken", "mail:send", "mail:fetch", "report"}),
        ("type=mail:*&state=available&origin=tests", {"mail:send", "mail:fetch"}),
        ("q=tImEout", {"broken"}),
        ("q=100%25", {"broken"}),
        ("q=out%25", set()),
        ("q=nothing", set()),
    ],
)
def test_lists_are_narrowed_down(boss: Any, project_service: QueueService, query: str, found: set[str]):
    """By state, type or pattern, origin, age, and a part of the error as it is."""
    fail_one(project_service, ValueError("a Timeout of 100% of the time"), origin="tests")
    for name in ("mail:send", "mail:fetch"):
        project_service.enqueue(name, 1, origin="tests")
    project_service.enqueue("report", 1, origin="shop")
    page = text_of(boss.get(f"{JOBS}?{query}"))
    assert set(re.findall(r"field-type[^>]*><a[^>]*>([^<]+)<", page)) == found


def test_a_job_is_found_by_its_id(boss: Any, project_service: QueueService):
    """The search takes an id."""
    jobs = [project_service.enqueue("t", 1) for _ in range(3)]
    page = text_of(boss.get(JOBS, {"q": str(jobs[1].id)}))
    assert str(jobs[1].id) in page
    assert rows_of(page) == 1


def test_a_job_is_shown(boss: Any, project_service: QueueService):
    """Its page has the payload, the error with its traceback, the runs that failed, the bundle; no field is open."""
    bundle = project_service.add_bundle(
        JobBundle.new(
            "import", [JobDesc({"to": "ann@example.com"}, type="broken", max_retry_count=1), JobDesc(2, type="t")]
        )
    )
    for message in ("the first time", "the second time"):
        project_service.reschedule_job(bundle.jobs[0].id, None)
        with project_service.claim(["broken"])[0] as claim:
            claim.fail(ValueError(message))
    page = text_of(boss.get(f"{JOBS}{bundle.jobs[0].id}/change/"))
    assert "{\n  &quot;to&quot;: &quot;ann@example.com&quot;\n}" in page
    assert page.count("builtins.ValueError: the first time") == 1
    assert "builtins.ValueError: the second time" in page
    assert "1 of 2" in page
    assert f"/admin/jobqueue/jobbundle/{bundle.id}/change/" in page
    assert 'name="_save"' not in page
    assert not re.findall(r'<(?:textarea|select|input type="text")[^>]*name="(?!q)', page)


def test_an_error_is_read_at_a_glance(boss: Any, project_service: QueueService):
    """The list begins with it, the page shows a traceback as text, and not as JSON once more."""
    job = fail_one(project_service, ValueError("out of\npaper"))
    listed = text_of(boss.get(JOBS))
    assert re.findall(r'class="column-(\w+)"', listed)[:4] == ["type", "shown_state", "shown_error", "origin"]
    assert '<div class="jobqueue-error">out of</div>' in listed
    page = text_of(boss.get(f"{JOBS}{job.id}/change/"))
    assert "{\n  &quot;type&quot;: &quot;builtins.ValueError&quot;\n}" in page
    assert "ValueError: out of\npaper" in page
    assert "&quot;traceback&quot;" not in page


def test_what_jobs_hold_is_no_markup(boss: Any, project_service: QueueService):
    """Types, origins, payloads, errors and reasons are shown as they are, and never run."""
    job = project_service.enqueue(f"{SCRIPT}", {SCRIPT: SCRIPT}, origin=SCRIPT)
    with project_service.claim([SCRIPT])[0] as claim:
        claim.fail(ValueError(SCRIPT))
    project_service.pause("x", reason=SCRIPT)
    project_service.add_schedule(SCRIPT, SCRIPT, {SCRIPT: 1}, every=timedelta(hours=1))
    bundle = project_service.add_bundle(JobBundle.new(SCRIPT, [JobDesc(SCRIPT, type=SCRIPT)], origin=SCRIPT))
    places = (
        *(JOBS, f"{JOBS}?type={SCRIPT}&origin={SCRIPT}&q={SCRIPT}", f"{JOBS}{job.id}/change/"),
        *("/admin/jobqueue/jobbundle/", f"/admin/jobqueue/jobbundle/{bundle.id}/change/"),
        *("/admin/jobqueue/pausedtype/", "/admin/jobqueue/schedule/"),
        "/admin/jobqueue/schedule/_3Cscript_3Ealert('x')_3C_2Fscript_3E/change/",
    )
    for place in places:
        page = text_of(boss.get(place))
        assert SCRIPT not in page, place
        assert "&lt;script&gt;alert" in page, place


def test_what_python_cannot_hold_is_shown(boss: Any, project_service: QueueService, project: str):
    """A payload that another program wrote, with a number of 5,000 digits, spoils neither the list nor the page."""
    job = project_service.enqueue("t", 1)
    with psycopg.connect(project) as connection:
        connection.execute("update worker.job set payload = %s::text::jsonb", ["9" * 5000])
    assert rows_of(text_of(boss.get(JOBS))) == 1
    assert "9" * 5000 in text_of(boss.get(f"{JOBS}{job.id}/change/"))


def test_no_page_counts_to_the_end(boss: Any, project_service: QueueService, monkeypatch: pytest.MonkeyPatch):
    """Rows are counted up to a limit, beyond which the list says so; each statement is bounded."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from jobqueue.contrib.django.admin import paging

    monkeypatch.setattr(paging, "MOST_COUNTED", 120)
    project_service.add_jobs([Job.new("t", number) for number in range(130)])
    with CaptureQueriesContext(connection) as queries:
        page = text_of(boss.get(f"{JOBS}?_facets=True"))
    assert rows_of(page) == 50
    assert "120+ jobs" in page
    about_jobs = [each["sql"] for each in queries if '"worker"."job"' in each["sql"]]
    assert len(about_jobs) == 2
    assert all(" LIMIT " in sql for sql in about_jobs), about_jobs
    assert rows_of(text_of(boss.get(f"{JOBS}?p=3"))) == 20


def test_lists_are_in_the_order_of_an_index(boss: Any, project_service: QueueService):
    """The list of jobs is read from the index of when they were added, and no JSON is read for it."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    project_service.add_jobs([Job.new("t", number) for number in range(60)])
    with CaptureQueriesContext(connection) as queries:
        text_of(boss.get(f"{JOBS}?o=2.1"))
    [listed] = [each["sql"] for each in queries if "ORDER BY" in each["sql"] and '"worker"."job"' in each["sql"]]
    assert 'ORDER BY "worker"."job"."created_at" DESC, "worker"."job"."id" DESC LIMIT' in listed
    assert '"payload"' not in listed
    with connection.cursor() as cursor:
        cursor.execute("set enable_seqscan = off")
        cursor.execute("set enable_sort = off")
        cursor.execute(f"explain {listed}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "job_created_at_idx" in plan
    assert "Sort" not in plan


def test_a_bundle_is_shown(boss: Any, project_service: QueueService):
    """Its progress, its members, and what comes at its end."""
    bundle = project_service.add_bundle(
        JobBundle.new(
            "import", [JobDesc(n, type="part") for n in range(4)], on_stopped=JobDesc({"at": "end"}, type="end")
        )
    )
    with project_service.claim(["part"])[0] as claim:
        claim.finish()
    project_service.enqueue("other", 1)
    page = text_of(boss.get(f"/admin/jobqueue/jobbundle/{bundle.id}/change/"))
    assert '<progress value="1" max="4"></progress> 1 of 4' in page
    assert "&quot;at&quot;: &quot;end&quot;" in page
    [members] = re.findall(r'href="([^"]+)">all members', page)
    assert rows_of(text_of(boss.get(members))) == 4


def test_schedules_are_shown(boss: Any, project_service: QueueService):
    """When they tick, and which jobs that has led to."""
    project_service.add_schedule("nightly", "report", {"a": 1}, cron="0 6 * * *", tz="Europe/Vienna")
    job = project_service.run_schedule_now("nightly")
    assert "0 6 * * * (Europe/Vienna)" in text_of(boss.get("/admin/jobqueue/schedule/"))
    page = text_of(boss.get("/admin/jobqueue/schedule/nightly/change/"))
    assert f"{JOBS}{job.id}/change/" in page
    assert "by hand" in page


def test_the_archive_is_shown(boss: Any, project_service: QueueService, project: str):
    """A job that retention has moved away has its page, and is not deleted there, by superusers neither."""
    from jobqueue import Retention

    job = fail_one(project_service, ValueError("long ago"))
    with psycopg.connect(project) as connection:
        connection.execute(
            "update worker.job set created_at = %(then)s, stopped_at = %(then)s",
            {"then": datetime(2020, 1, 1, tzinfo=UTC)},
        )
    project_service.clean(Retention(failed=timedelta(days=1), mode="archive"))
    page = text_of(boss.get(f"/admin/jobqueue/archivedjob/{job.id}/change/"))
    assert "long ago" in page
    assert "archived at" in page.lower()
    assert rows_of(text_of(boss.get(JOBS))) == 0
    place = "/admin/jobqueue/archivedjob/"
    listed = text_of(boss.get(place))
    assert re.findall(r"state=(\w+)", listed) == ["cancelled", "failed", "succeeded"]
    assert ("delete" in page, 'name="action"' in listed) == (False, False)
    assert boss.post(f"{place}{job.id}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("permissions", [[], ["delete_job"]])
def test_who_may_not_view_sees_nothing(
    client_of: Callable[..., Any], project_service: QueueService, permissions: list[str]
):
    """Without the permission to view, neither list nor page is shown."""
    job = project_service.enqueue("t", 1)
    client = client_of(permissions)
    assert client.get(JOBS).status_code == 403
    assert client.get(f"{JOBS}{job.id}/change/").status_code == 403


def test_who_may_view_only_looks(client_of: Callable[..., Any], project_service: QueueService):
    """With that permission alone there are no actions, and no buttons."""
    job = project_service.enqueue("t", 1)
    client = client_of(["view_job"])
    assert 'name="action"' not in text_of(client.get(JOBS))
    page = text_of(client.get(f"{JOBS}{job.id}/change/"))
    assert "jobqueue-tools" not in page
    assert "deletelink" not in page


@pytest.mark.parametrize(
    "query",
    [
        *("type=mail%00", "type=mail%00*", "origin=%00", "claimed_by=%00", "payload__a%00=1", "q=mail%00"),
        *("state=%00&type=mail", "bundle__id__exact=%00", "error_msg__regex=("),
    ],
)
def test_what_no_text_holds_is_found_nowhere(boss: Any, project_service: QueueService, query: str):
    """A NUL in the address of a list finds nothing; what is no condition leads to the whole list, as everywhere."""
    project_service.enqueue("mail", 1)
    response = boss.get(f"{JOBS}?{query}", follow=True)
    assert rows_of(text_of(response)) == (1 if response.redirect_chain == [(f"{JOBS}?e=1", 302)] else 0)
    assert bool(response.redirect_chain) == ("%00" not in query or "__exact" in query)


@pytest.mark.parametrize("place", ["schedule/a_00b/change/", "schedule/a%00b/delete/", "pausedtype/a_00b/history/"])
def test_what_no_name_holds_has_no_page(boss: Any, project_service: QueueService, place: str):
    """Nor has a NUL in the address of a page one."""
    response = boss.get(f"/admin/jobqueue/{place}", follow=True)
    assert response.redirect_chain == [("/admin/", 302)]
    assert "exist" in text_of(response)
