"""The setting JOBQUEUE."""

from datetime import timedelta
from weakref import WeakSet

import attrs
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

import jobqueue
from jobqueue import Retention, WorkerSettings
from jobqueue.contrib.django.configuration import KEYS, Configuration, read
from jobqueue.registry import default_registry


def test_defaults():
    """Without the setting, the queue is in schema worker of the default database, and no threads start."""
    said = read({})
    assert (said.database, said.schema, said.threads, said.start, said.autodiscover) == (
        *("default", "worker", 0, "auto", "jobs"),
    )
    assert said.workers == WorkerSettings()


def test_keys_are_those_of_the_workers_too():
    """Each setting of the workers is a key, in capitals."""
    said = read({"THREADS": 3, "LANES": {"mail": 2}, "DEAD_FOR": timedelta(minutes=2), "BATCH_SIZE": 1})
    assert (said.threads, said.lanes) == (3, {"mail": 2})
    assert said.workers == WorkerSettings(dead_for=timedelta(minutes=2), batch_size=1)
    assert {field.name.upper() for field in attrs.fields(WorkerSettings)} <= set(KEYS)
    assert {field.name.upper() for field in attrs.fields(Configuration)} - set(KEYS) == {"WORKERS"}


@pytest.mark.parametrize(
    "retention", [Retention(failed=None), {"failed": None}, {"failed": None, "succeeded": timedelta(days=7)}]
)
def test_retention_may_be_a_mapping(retention):
    """How long jobs are kept is said by a Retention, or by a dict of what that takes."""
    assert read({"RETENTION": retention}).retention == Retention(failed=None)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"THREADZ": 4}, "JOBQUEUE['THREADZ'] is no setting of the job queue: did you mean \"THREADS\"?"),
        ({"threads": 4}, "JOBQUEUE['threads'] is no setting of the job queue: did you mean \"THREADS\"?"),
        ({"COLOUR": 4}, "JOBQUEUE['COLOUR'] is no setting of the job queue: there are ATOMIC_CONNECTIONS, "),
        ({7: 4}, "JOBQUEUE[7] is no setting of the job queue: there are ATOMIC_CONNECTIONS, "),
        ({"THREADS": "4"}, "JOBQUEUE[\"THREADS\"] must be int, not '4'"),
        ({"THREADS": True}, 'JOBQUEUE["THREADS"] must be int, not True'),
        ({"THREADS": -1}, 'JOBQUEUE["THREADS"] must be 0 or more, not -1'),
        ({"POOL_SIZE": 0}, 'JOBQUEUE["POOL_SIZE"] must be 1 or more, not 0'),
        ({"START": "yes"}, "JOBQUEUE[\"START\"] must be 'auto', True or False, not 'yes'"),
        ({"DATABASE": None}, 'JOBQUEUE["DATABASE"] must be str, not None'),
        ({"ORIGIN": 5}, 'JOBQUEUE["ORIGIN"] must be a str, not int'),
        ({"ORIGIN": ""}, "JOBQUEUE[\"ORIGIN\"] must have 1 to 100 characters, but '' has 0"),
        ({"SCHEMA": ""}, "JOBQUEUE[\"SCHEMA\"] must be the name of a schema, such as 'worker', not ''"),
        ({"SCHEMA": None}, "JOBQUEUE[\"SCHEMA\"] must be the name of a schema, such as 'worker', not None"),
        ({"MAX_PAYLOAD_BYTES": 0}, 'JOBQUEUE["MAX_PAYLOAD_BYTES"] must be 1 or more, not 0'),
        ({"AUTODISCOVER": "a.b"}, 'JOBQUEUE["AUTODISCOVER"] must be the name of a module that apps may have'),
        ({"POLL_INTERVAL": 5}, 'JOBQUEUE["POLL_INTERVAL"] must be a timedelta, not 5'),
        ({"DEAD_FOR": timedelta(seconds=1)}, 'JOBQUEUE["DEAD_FOR"] is 0:00:01, but must be at least three times'),
        ({"BATCH_SIZE": 0}, 'JOBQUEUE["BATCH_SIZE"] must be at least 1 and below'),
        ({"LANES": {"mail": 2}, "THREADS": 2}, 'JOBQUEUE["LANES"] reserve 2 of 2 threads'),
        ({"LANES": 2}, 'JOBQUEUE["LANES"] must be a mapping'),
        ({"RETENTION": 2}, 'JOBQUEUE["RETENTION"] must be Retention or None, not 2'),
        ({"RETENTION": {"failed": 2}}, 'JOBQUEUE["RETENTION"] cannot be meant: failed must be a timedelta'),
        ({"RETENTION": {"sooner": None}}, "JOBQUEUE[\"RETENTION\"] has 'sooner', but what it may have is succeeded, "),
        ({"RETENTION": {7: None}}, 'JOBQUEUE["RETENTION"] has 7, but'),
        ({"RETENTION": {"by_type": {"": {}}}}, 'JOBQUEUE["RETENTION"] cannot be meant: by_type must have 1 to 100'),
        ({"UNKNOWN_TYPES": "no"}, "JOBQUEUE[\"UNKNOWN_TYPES\"] must be one of 'allow', 'warn', 'refuse', not 'no'"),
        ({"UNIQUE_LOCK_TIMEOUT": 2}, 'JOBQUEUE["UNIQUE_LOCK_TIMEOUT"] must be a timedelta, not 2'),
        ({"UNIQUE_LOCK_TIMEOUT": timedelta()}, 'JOBQUEUE["UNIQUE_LOCK_TIMEOUT"] must be a millisecond to a day, not'),
        ("THREADS=4", "JOBQUEUE must be a dict such as {\"THREADS\": 4}, not 'THREADS=4'"),
    ],
)
def test_what_is_wrong_is_named(said, message):
    """Of a wrong setting the message names the key, the value and what it may be."""
    with pytest.raises(ImproperlyConfigured) as error:
        read(said)
    assert message in str(error.value)


def test_overridden_settings_count(project):
    """While a test overrides JOBQUEUE, the service is another one, made by what it says."""
    usual = jobqueue.current_service()
    with override_settings(JOBQUEUE={"ORIGIN": "tests", "BATCH_SIZE": 5}):
        other = jobqueue.current_service()
        assert (other.origin, other.settings.batch_size) == ("tests", 5)
        assert jobqueue.current_service() is other
    assert jobqueue.current_service() not in {usual, other}
    assert jobqueue.current_service().settings == WorkerSettings()
    with pytest.raises(jobqueue.ClosedError):
        other.get_status()


def test_a_wrong_setting_shows_at_the_first_call(project):
    """Where no system check told of it, the first call does."""
    with override_settings(JOBQUEUE={"THREADZ": 1}), pytest.raises(ImproperlyConfigured, match="THREADS"):
        jobqueue.get_status()


def test_types_without_a_handler(project, monkeypatch):
    """A type that no app handles is refused, with the name that was meant; JOBQUEUE may allow it."""
    # Not those of other tests, which may handle all types.
    monkeypatch.setattr("jobqueue.registry._registries", WeakSet([default_registry]))

    @jobqueue.handler("send-letter")
    def send_letter(to):
        pass

    with (
        override_settings(JOBQUEUE={}),
        pytest.raises(jobqueue.InvalidJobError, match="did you mean 'send-letter'"),
    ):
        jobqueue.enqueue("send-leter", "me")
    with override_settings(JOBQUEUE={"UNKNOWN_TYPES": "allow"}):
        jobqueue.enqueue("send-leter", "me")
    with override_settings(JOBQUEUE={"AUTODISCOVER": None}):
        jobqueue.enqueue("something-else", "me")
    assert jobqueue.get_status().num_jobs == 2
