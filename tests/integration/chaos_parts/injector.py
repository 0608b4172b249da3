"""What goes wrong in a chaos run: one fault after the other, at random moments, several of them at the same time."""

import heapq
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Final

from tests.fixtures.fault_proxy import FaultProxy
from tests.integration.chaos_parts.plan import DEAD_FOR
from tests.integration.chaos_parts.scene import Scene

_DEAD_FOR = DEAD_FOR.total_seconds()
_PAUSES = (0.4, 1.6)
# A run in which there is time for faults that last longer than anybody should wait.
_LONG = 180
# What tells a trip that saves something; statements themselves are sent once only, when they are prepared.
_OUTCOMES = (b'"finished"', b'"retry"', b'"snoozed"', b'"failed"')
_SESSIONS: Final = "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"

# It is a fault when somebody is caught in it.
_TRAP: Final = "trap set"

Fault = Callable[[], str]
"""Injects itself; returns what it is, or nothing when it is not possible now."""

End = Callable[[], None]


class Injector:
    """Injects faults into a scene, and ends each of them after a while."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene = scene
        self._chance = random.Random(seed)
        self._numbers = count()
        self._ends: list[tuple[float, int, End]] = []
        self._broken = set[FaultProxy]()
        self._frozen = set[int]()
        self._deck: list[Fault] = []
        self._is_long = False
        self.counts = Counter[str]()

    def run(self, seconds: float) -> None:
        """Inject faults for so many *seconds*, and end them all."""
        self._is_long = seconds >= _LONG
        waiting = threading.Event()
        deadline = time.monotonic() + seconds
        next_at = time.monotonic()
        while (now := time.monotonic()) < deadline:
            self._end_faults(now)
            if now >= next_at:
                self._inject()
                next_at = time.monotonic() + self._chance.uniform(*_PAUSES)
            waiting.wait(max(0.01, min([next_at, deadline, *(at for at, *_ in self._ends[:1])]) - time.monotonic()))
        self._heal()

    def _inject(self) -> None:
        """Inject the first fault of the deck that is possible now."""
        self._deck = self._deck or self._shuffled()
        for fault in list(self._deck):
            if name := fault():
                self._deck.remove(fault)
                break
        else:
            self._deck.clear()
            return
        if name != _TRAP:
            self.counts[name] += 1

    def _note(self, name: str, *hit: int) -> str:
        """Write down that a fault begins, which has *hit* the processes with these ids, or all of them."""
        self._scene.recorder.note("fault", name=name, hit=hit)
        return name

    def _shuffled(self) -> list[Fault]:
        # A deck of cards, so that there is something of everything even in a short run.
        faults: dict[Fault, int] = {
            self._kill_worker: 3,
            self._replace_worker: 2,
            self._freeze_worker: 3,
            self._terminate_sessions: 3,
            self._crash_session: 1,
            lambda: self._stop_server(signal.SIGTERM, "smart"): 1,
            lambda: self._stop_server(signal.SIGINT, "fast"): 1,
            lambda: self._stop_server(signal.SIGQUIT, "immediate"): 1,
            self._lock_bundles: 1,
            self._cut_network: 3,
            self._cut_all_networks: 1,
            self._freeze_network: 3,
            self._halve_network: 3,
            self._delay_network: 2,
            self._refuse_connections: 2,
            self._cut_answer_to_commit: 3,
            self._cut_answer_to_trip: 3,
        }
        if self._is_long:
            faults[self._freeze_network_for_long] = 1
        deck = [fault for fault, times in faults.items() for _ in range(times)]
        self._chance.shuffle(deck)
        return deck

    def _end_in(self, shortest: float, longest: float, end: End) -> None:
        at = time.monotonic() + self._chance.uniform(shortest, longest)
        heapq.heappush(self._ends, (at, next(self._numbers), end))

    def _end_faults(self, before: float) -> None:
        while self._ends and self._ends[0][0] <= before:
            heapq.heappop(self._ends)[2]()

    def _heal(self) -> None:
        self._end_faults(float("inf"))
        for network in self._scene.networks:
            network.heal()
        self.counts["answer to a commit cut off"] = sum(network.num_cut_answers for network in self._scene.networks)

    # --- processes

    def _kill_worker(self) -> str:
        worker = self._chance.choice(self._scene.workers)
        self._scene.kill_worker(worker)
        return self._note("worker killed", worker.pid)

    def _replace_worker(self) -> str:
        worker = self._chance.choice(self._scene.workers)
        self._scene.replace_worker(worker)
        return self._note("worker replaced", worker.pid)

    def _freeze_worker(self) -> str:
        awake = [worker for worker in self._scene.workers if worker.pid not in self._frozen]
        if not awake:
            return ""
        worker = self._chance.choice(awake)
        worker.send(signal.SIGSTOP)
        self._frozen.add(worker.pid)

        def thaw() -> None:
            self._frozen.discard(worker.pid)
            worker.send(signal.SIGCONT)
            self._note("worker thawed", worker.pid)

        self._end_in(1.2 * _DEAD_FOR, 3 * _DEAD_FOR, thaw)
        return self._note("worker frozen past dead_for", worker.pid)

    # --- the server

    def _terminate_sessions(self) -> str:
        killed = self._scene.ask(f"select pg_terminate_backend(pid) from ({_SESSIONS} order by random() limit 4) s")
        return self._note("sessions terminated") if killed else ""

    def _crash_session(self) -> str:
        pids = self._scene.ask(f"{_SESSIONS} order by random() limit 1")
        if not pids:
            return ""
        with suppress(ProcessLookupError):
            os.kill(pids[0][0], signal.SIGKILL)
        return self._note("session killed, server recovers")

    def _stop_server(self, way: signal.Signals, name: str) -> str:
        if not self._scene.is_serving:
            return ""
        self._scene.stop_server(way)
        self._end_in(0.1, 1.5 * _DEAD_FOR, self._scene.start_server)
        return self._note(f"server stopped ({name}) and started")

    def _lock_bundles(self) -> str:
        """Hold the rows of all bundles for longer than a trip waits for one of them."""
        session = self._scene.lock("select from worker.job_bundle order by id for update")
        if session is None:
            return ""
        self._end_in(2, 4, session.close)
        return self._note("bundles locked")

    # --- the networks

    def _cut_network(self) -> str:
        network = self._choose_network()
        network.cut()
        return self._note("network cut", self._user_of(network))

    def _cut_all_networks(self) -> str:
        for network in self._scene.networks:
            network.cut()
        return self._note("all networks cut")

    def _freeze_network(self) -> str:
        return self._break_network("network frozen", FaultProxy.freeze, FaultProxy.thaw)

    def _freeze_network_for_long(self) -> str:
        return self._break_network(
            "network frozen for 12 s or more", FaultProxy.freeze, FaultProxy.thaw, shortest=12, longest=15
        )

    def _halve_network(self) -> str:
        return self._break_network("network halved", lambda network: network.freeze(answers_only=True), FaultProxy.thaw)

    def _delay_network(self) -> str:
        seconds = self._chance.uniform(0.02, 0.2)
        return self._break_network(
            "network delayed", lambda network: network.delay(seconds), lambda network: network.delay(0)
        )

    def _refuse_connections(self) -> str:
        def refuse(network: FaultProxy) -> None:
            network.refuse()
            network.cut()

        return self._break_network("connections cut and refused", refuse, FaultProxy.accept)

    def _cut_answer_to_commit(self) -> str:
        network = self._choose_network()
        network.cut_answer(to=b"COMMIT", times=2)
        return self._note(_TRAP, self._user_of(network))

    def _cut_answer_to_trip(self) -> str:
        network = self._chance.choice(self._scene.worker_networks)
        network.cut_answer(to=self._chance.choice(_OUTCOMES))
        return self._note(_TRAP, self._user_of(network))

    def _choose_network(self) -> FaultProxy:
        return self._chance.choice(self._scene.networks)

    def _user_of(self, network: FaultProxy) -> int:
        users = [self._scene.traffic, *self._scene.workers]
        return users[self._scene.networks.index(network)].pid

    def _break_network(
        self,
        name: str,
        break_: Callable[[FaultProxy], None],
        mend: Callable[[FaultProxy], None],
        *,
        shortest: float = 0.3,
        longest: float = 2 * _DEAD_FOR,
    ) -> str:
        network = self._choose_network()
        if network in self._broken:
            return ""
        break_(network)
        self._broken.add(network)

        def end() -> None:
            self._broken.discard(network)
            mend(network)
            self._note(f"end of {name}", self._user_of(network))

        self._end_in(shortest, longest, end)
        return self._note(name, self._user_of(network))
