"""Those in a chaos run who add jobs and bundles."""

import random
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from jobqueue import Job, JobBundle
from jobqueue.errors import BackendError, DuplicateJobError
from tests.fixtures.go_client import GoClient
from tests.integration.chaos_parts.keyed import KeyedAdder
from tests.integration.chaos_parts.plan import COMPLETE, GO_TYPE, random_desc, random_payload
from tests.integration.chaos_parts.traffic import Traffic

_LONGEST_DELAY = 2.0
_LONGEST_GO_PAUSE = 1.0
# Longer than anybody waits who wants a key for which another transaction has asked.
_LONGEST_TRANSACTION = 4.0


class Enqueuer:
    """Adds jobs and bundles, in transactions of its own connection and in the service's."""

    def __init__(self, traffic: Traffic, chance: random.Random) -> None:
        self._traffic = traffic
        self._chance = chance
        self._keyed = KeyedAdder(traffic, chance)

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
        transaction = uuid4()
        with suppress(BackendError):
            if self._chance.random() < 0.5:
                self._traffic.begin(transaction, [])
                ids = self._keyed.add(transaction)
            else:
                [job] = self._jobs(1)
                self._traffic.begin(transaction, ids := [job.id])
                self._traffic.service.add_job(job)
            self._traffic.end(transaction, "committed", ids)

    def _add_in_transaction(self, connection: "psycopg.Connection[Any]") -> None:
        jobs = self._jobs(self._chance.randint(1, 4))
        bundle = self._bundle() if self._chance.random() < 0.4 else None
        ids = [job.id for job in (*jobs, *(() if bundle is None else bundle.jobs))]
        self._traffic.begin(transaction := uuid4(), ids)
        end = self._chance.choices(["commit", "roll back", "vanish"], [8, 2, 1])[0]
        try:
            ids += self._add(transaction, jobs, bundle, connection)
        except DuplicateJobError:
            end = "roll back"
        except BaseException:
            self._traffic.end(transaction, "rolled back")  # for nobody has asked for a commit
            raise
        if self._chance.random() < 0.1:
            self._traffic.pause(self._chance, _LONGEST_TRANSACTION)
        if end == "commit":
            connection.commit()
            self._traffic.end(transaction, "committed", ids)
            return
        self._traffic.end(transaction, "rolled back")
        if end == "vanish":
            raise psycopg.OperationalError("the enqueuer leaves without a word")
        connection.rollback()

    def _add(
        self, transaction: UUID, jobs: list[Job], bundle: JobBundle | None, connection: "psycopg.Connection[Any]"
    ) -> list[UUID]:
        """Add all of them, and sometimes jobs with keys among and beside them; return the ids of these."""
        keyed = [self._keyed.job() for _ in range(self._chance.choice([0, 0, 1, 2]))]
        together = self._chance.sample([*jobs, *keyed], len(jobs) + len(keyed))
        ids = self._keyed.add_all(transaction, together, connection)
        for _ in range(self._chance.choice([0, 0, 1])):
            ids += self._keyed.add(transaction, connection)
        if bundle is not None:
            self._traffic.service.add_bundle(bundle, connection=connection)
        return ids

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
                self._traffic.pause(self._chance, _LONGEST_GO_PAUSE)

    def _add(self, go: GoClient) -> None:
        job, transaction = uuid4(), uuid4()
        self._traffic.begin(transaction, [job])
        go.add_job(self._chance.choice([GO_TYPE, "steady"]), random_payload(self._chance), id=job)
        self._traffic.end(transaction, "committed", [job])
