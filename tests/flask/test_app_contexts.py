import sys
from weakref import WeakSet

import flask
import pytest

import jobqueue
from jobqueue import InvalidJobError, NotInitializedError, UnavailableError
from jobqueue.contrib.flask import JobQueue
from tests.fixtures.threads import names_of_threads
from tests.fixtures.workers import wait_for_end


def test_a_job_in_a_context_of_its_own(apps, work_for):
    """Each run has its application's context to itself; its teardown functions run when it ends, with its error."""
    app, queue = apps.make(SERVER_NAME="shop.example", PREFERRED_URL_SCHEME="https")
    torn_down = []
    app.add_url_rule("/orders/<int:number>", endpoint="order")

    @app.teardown_appcontext
    def tear_down(error):
        torn_down.append((flask.g.pop("number", None), type(error)))

    @queue.handler("link")
    def link(number: int) -> str:
        assert "number" not in flask.g
        assert flask.current_app == app
        flask.g.number = number
        if number == 3:
            raise ValueError(number)
        return flask.url_for("order", number=number)

    work_for(app, threads=1)
    ended = [wait_for_end(queue.service, queue.service.enqueue("link", number)) for number in (1, 2, 3)]
    assert [job.result for job in ended] == [f"https://shop.example/orders/{number}" for number in (1, 2)] + [None]
    assert ended[2].error_msg == "3"
    assert torn_down == [(1, type(None)), (2, type(None)), (3, ValueError)]


def test_the_service_of_the_current_application(apps):
    """The functions of the package work on the queue of the current application, each with its own."""
    one, queue_of_one = apps.make("one")
    two, queue_of_two = apps.make("two", JOBQUEUE_ORIGIN="both")
    with one.app_context():
        assert jobqueue.enqueue("t", 1).origin == "one"
        assert queue_of_one.service is jobqueue.current_service()
        with two.app_context():
            assert jobqueue.enqueue("t", 1).origin == "both"
            assert queue_of_two.service is jobqueue.current_service()
            with pytest.raises(NotInitializedError, match="'two' has not this job queue"):
                queue_of_one.service.get_status()


def test_outside_of_contexts(apps):
    """Where there is no context, the only application is meant; of several, none is."""
    _, queue = apps.make("one")
    assert jobqueue.current_service() is queue.service
    _, other = apps.make("two")
    with pytest.raises(NotInitializedError, match=r"2 Flask applications .*`with app.app_context\(\):`"):
        jobqueue.current_service()
    other.close()
    assert jobqueue.current_service() is queue.service


def test_an_extension_without_an_application():
    """An extension that no application has says so."""
    with pytest.raises(NotInitializedError, match=r"call init_app\(app\)"):
        JobQueue().service.get_status()


def test_an_application_factory(queue, registry):
    """One extension serves all applications that a factory makes."""
    extension = JobQueue(registry=registry)
    made = []
    for name in ("one", "two"):
        app = flask.Flask(name)
        app.config.update(JOBQUEUE_DSN=queue, JOBQUEUE_UNKNOWN_TYPES="allow")
        extension.init_app(app)
        made.append(app)
    for app in made:
        with app.app_context():
            assert extension.service.enqueue("t", 1).origin == app.name
            extension.close()


def test_nothing_is_connected_before_it_is_needed(registry):
    """An application is made, and answers, though there is no database; what needs it says so."""
    app = flask.Flask("shop")
    app.config.update(JOBQUEUE_DSN="postgresql://127.0.0.1:1/none?connect_timeout=2", JOBQUEUE_THREADS=2)
    queue = JobQueue(app, registry=registry)
    app.add_url_rule("/", view_func=lambda: "here")
    assert app.test_client().get("/").text == "here"
    with app.app_context(), pytest.raises(UnavailableError):
        queue.service.get_status()
    with app.app_context():
        queue.close()


def test_whose_requests_start_threads(apps, monkeypatch):
    """Requests of a test start no threads, with app.testing or without; those of a server do."""
    app, queue = apps.make(JOBQUEUE_THREADS=1)
    app.add_url_rule("/", view_func=lambda: "here")
    queue.handler("t")(lambda number: number)
    before = names_of_threads()
    client = app.test_client()
    client.get("/")
    monkeypatch.delitem(sys.modules, "flask.testing")
    app.testing = True
    client.get("/")
    assert names_of_threads() == before
    app.testing = False
    client.get("/")
    assert wait_for_end(queue.service, queue.service.enqueue("t", {"number": 5})).result == {"number": 5}


@pytest.mark.parametrize("config", [{"JOBQUEUE_THREADS": 0}, {"JOBQUEUE_THREADS": 1, "JOBQUEUE_START": False}])
def test_threads_that_are_not_wanted(apps, monkeypatch, config):
    """Without threads, or with JOBQUEUE_START = False, no request starts any; by hand they are started."""
    app, queue = apps.make(**config)
    app.add_url_rule("/", view_func=lambda: "here")
    queue.handler("t")(lambda number: number)
    client = app.test_client()
    monkeypatch.delitem(sys.modules, "flask.testing")
    before = names_of_threads()
    client.get("/")
    assert names_of_threads() == before
    queue.start_threads()
    assert wait_for_end(queue.service, queue.service.enqueue("t", 5)).result == 5


def test_threads_started_within_a_context(apps):
    """Threads that are started in a context do not stay in it: each job has its own."""
    app, queue = apps.make(JOBQUEUE_THREADS=1)
    seen = []

    @queue.handler("t")
    def t(number: int) -> None:
        seen.append(flask.g.get("number"))

    with app.app_context():
        flask.g.number = 5
        queue.start_threads()
        wait_for_end(queue.service, queue.service.enqueue("t", 1))
    assert seen == [None]


def test_modules_with_handlers(apps, tmp_path, monkeypatch):
    """Modules that JOBQUEUE_IMPORTS names are imported before the queue is used, not when the application is made."""
    (tmp_path / "jobs_of_the_shop.py").write_text("imported = True")
    monkeypatch.syspath_prepend(tmp_path)
    _, queue = apps.make(JOBQUEUE_IMPORTS=["jobs_of_the_shop"])
    assert "jobs_of_the_shop" not in sys.modules
    assert queue.service
    assert sys.modules.pop("jobs_of_the_shop").imported


def test_a_module_that_there_is_not(apps):
    """A module in JOBQUEUE_IMPORTS that cannot be found is named."""
    _, queue = apps.make(JOBQUEUE_IMPORTS=["shop_of_nobody.jobs"])
    with pytest.raises(ValueError, match=r"names 'shop_of_nobody.jobs', and there is no module 'shop_of_nobody'"):
        queue.service.get_status()


def test_a_type_that_is_spelt_wrong(apps, registry, monkeypatch):
    """A job for which no handler is registered is refused, with the one that is likely meant."""
    # Not those of other tests, which may handle all types.
    monkeypatch.setattr("jobqueue.registry._registries", WeakSet([registry]))
    _, queue = apps.make(JOBQUEUE_UNKNOWN_TYPES="refuse")
    queue.handler("send-letter")(lambda number: number)
    with pytest.raises(InvalidJobError, match="did you mean 'send-letter'"):
        queue.service.enqueue("send-leter", 1)
