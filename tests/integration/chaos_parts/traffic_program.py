"""The applications of a chaos run: they add jobs in transactions, and cancel and reset some, until stdin is closed.

Arguments: the conninfo, and a JSON object with ``directory``, ``seed`` and ``enqueuers`` (how many threads add jobs).
"""

import json
import random
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import attrs
import psycopg
from psycopg.conninfo import make_conninfo

import jobqueue_pg
from jobqueue import Job, JobBundle, JobNotFoundError, Service
from jobqueue.errors import BackendError
from tests.fixtures.go_client import GoClient
from tests.integration.chaos_parts.plan import COMPLETE, GO_TYPE, random_desc, random_payload
from tests.integration.chaos_parts.recorder import Recorder

_LONGEST_PAUSE = 0.25
_LONGEST_DELAY = 2.0
_LOOK_EVERY = 0.5
_MOST_TO_DO = 200


@attrs.define
class Traffic:
    """What the threads of the program share."""

    conninfo: str
    service: Service
    recorder: Recorder
    stopping: threading.Event = attrs.field(factory=threading.Event)
    added: "deque[UUID]" = attrs.field(factory=lambda: deque[UUID](maxlen=20))
    is_jammed: bool = False
    """Whether so much waits to be done that nothing more should be added."""

    def begin(self, transaction: UUID, jobs: list[UUID]) -> None:
        """Write down what is about to be added."""
        self.recorder.note("transaction began", transaction=transaction, jobs=jobs)

    def end(self, transaction: UUID, fate: str, jobs: Sequence[UUID] = ()) -> None:
        """Write down what has become of it; a transaction for which nobody does this may be either."""
        self.recorder.note("transaction ended", transaction=transaction, fate=fate)
        self.added.extend(jobs)

    def repeat(self, act: Callable[[], None]) -> None:
        """Do *act* again and again, whatever becomes of it."""
        while not self.stopping.is_set():
            with suppress(BackendError, psycopg.Error):
                act()

    def pause(self, chance: random.Random, longest: float = _LONGEST_PAUSE) -> None:
        """Leave time for others."""
        self.stopping.wait(chance.uniform(0, longest))


class Enqueuer:
    """Adds jobs and bundles, in transactions of its own connection and in the service's."""

    def __init__(self, traffic: Traffic, chance: random.Random) -> None:
        self._traffic = traffic
        self._chance = chance

    def run(self) -> None:
        """Go on until the traffic stops."""
        self._traffic.repeat(self._use_connection)

    def _use_connection(self) -> None:
        self._traffic.pause(self._chance)
        with closing(psycopg.connect(self._traffic.conninfo)) as connection:
            while not self._traffic.stopping.is_set():
                if self._traffic.is_jammed:
                    pass
                elif self._chance.random() < 0.25:
                    self._add_without_transaction()
                else:
                    self._add_in_transaction(connection)
                self._traffic.pause(self._chance)

    def _add_without_transaction(self) -> None:
        """Leave the commit to the service: when its answer is lost, nobody knows whether it has happened."""
        [job] = self._jobs(1)
        self._traffic.begin(transaction := uuid4(), [job.id])
        with suppress(BackendError):
            self._traffic.service.add_job(job)
            self._traffic.end(transaction, "committed", [job.id])

    def _add_in_transaction(self, connection: "psycopg.Connection[Any]") -> None:
        jobs = self._jobs(self._chance.randint(1, 4))
        bundle = self._bundle() if self._chance.random() < 0.4 else None
        ids = [job.id for job in (*jobs, *(() if bundle is None else bundle.jobs))]
        self._traffic.begin(transaction := uuid4(), ids)
        end = self._chance.choices(["commit", "roll back", "vanish"], [8, 2, 1])[0]
        try:
            self._traffic.service.add_jobs(jobs, connection=connection)
            if bundle is not None:
                self._traffic.service.add_bundle(bundle, connection=connection)
        except BaseException:
            self._traffic.end(transaction, "rolled back")  # for nobody has asked for a commit
            raise
        if end == "commit":
            connection.commit()
            self._traffic.end(transaction, "committed", ids)
            return
        self._traffic.end(transaction, "rolled back")
        if end == "vanish":
            raise psycopg.OperationalError("the enqueuer leaves without a word")
        connection.rollback()

    def _jobs(self, number: int) -> list[Job]:
        descs = [random_desc(self._chance) for _ in range(number)]
        return [
            Job.new(
                desc.type,
                desc.payload,
                origin="traffic",
                priority=desc.priority,
                max_retry_count=desc.max_retry_count,
                start_at=self._moment() if self._chance.random() < 0.2 else None,
            )
            for desc in descs
        ]

    def _bundle(self) -> JobBundle:
        descs = [random_desc(self._chance, but={GO_TYPE}) for _ in range(self._chance.randint(1, 6))]
        on_stopped = COMPLETE if self._chance.random() < 0.7 else None
        return JobBundle.new("bundle", descs, origin="traffic", on_stopped=on_stopped)

    def _moment(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._chance.uniform(0, _LONGEST_DELAY))


class GoEnqueuer:
    """Adds jobs as a process of go-jobqueue does: for its own kind, and for ours."""

    def __init__(self, traffic: Traffic, chance: random.Random) -> None:
        self._traffic = traffic
        self._chance = chance

    def run(self) -> None:
        """Go on until the traffic stops."""
        self._traffic.repeat(self._use_connection)

    def _use_connection(self) -> None:
        self._traffic.pause(self._chance)
        with closing(psycopg.connect(self._traffic.conninfo, autocommit=True)) as connection:
            go = GoClient(connection)
            while not self._traffic.stopping.is_set():
                if not self._traffic.is_jammed:
                    self._add(go)
                self._traffic.pause(self._chance, 4 * _LONGEST_PAUSE)

    def _add(self, go: GoClient) -> None:
        job, transaction = uuid4(), uuid4()
        self._traffic.begin(transaction, [job])
        go.add_job(self._chance.choice([GO_TYPE, "steady"]), random_payload(self._chance), id=job)
        self._traffic.end(transaction, "committed", [job])


class Gauge:
    """Looks how much waits to be done, so that the workers keep up whatever is done to them."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def run(self) -> None:
        """Go on until the traffic stops."""
        self._traffic.repeat(self._look)

    def _look(self) -> None:
        self._traffic.stopping.wait(_LOOK_EVERY)
        self._traffic.is_jammed = len(self._traffic.service.get_all_jobs_to_do()) > _MOST_TO_DO


class Manager:
    """Cancels, resets, replays and reschedules jobs that were added a moment ago."""

    def __init__(self, traffic: Traffic, chance: random.Random) -> None:
        self._traffic = traffic
        self._chance = chance
        service = traffic.service
        self._acts: dict[str, Callable[[UUID], object]] = {
            "cancel": service.cancel_job,
            "reset": service.reset_job,
            "replay": service.replay_job,
            "reschedule": lambda job: service.reschedule_job(job, None),
        }

    def run(self) -> None:
        """Go on until the traffic stops."""
        self._traffic.repeat(self._act_once)

    def _act_once(self) -> None:
        self._traffic.pause(self._chance)
        if not self._traffic.added:
            return
        job = self._chance.choice(list(self._traffic.added))
        act = self._chance.choice(list(self._acts))
        request = uuid4()
        self._traffic.recorder.note("request began", request=request, act=act, job=job)
        with suppress(JobNotFoundError):
            answer = self._acts[act](job)
            self._traffic.recorder.note("request ended", request=request, answer=answer is not False)


def connect(conninfo: str) -> Service:
    """Connect as soon as there is a server."""
    while True:
        try:
            return jobqueue_pg.connect(conninfo, origin="traffic")
        except BackendError:
            threading.Event().wait(0.2)


def main() -> None:
    conninfo, options = make_conninfo(sys.argv[1], connect_timeout=2), json.loads(sys.argv[2])
    with closing(connect(conninfo)) as service:
        traffic = Traffic(conninfo, service, Recorder(Path(options["directory"]), "traffic"))
        runs = [
            Enqueuer(traffic, random.Random(f"{options['seed']}-{number}")).run
            for number in range(options["enqueuers"])
        ]
        runs.append(GoEnqueuer(traffic, random.Random(f"{options['seed']}-go")).run)
        runs.append(Manager(traffic, random.Random(f"{options['seed']}-manager")).run)
        runs.append(Gauge(traffic).run)
        with ThreadPoolExecutor(len(runs)) as threads:
            running = [threads.submit(run) for run in runs]
            sys.stdin.read()
            traffic.stopping.set()
        for ended in running:
            ended.result()


if __name__ == "__main__":
    main()
