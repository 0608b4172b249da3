"""A process of go-jobqueue in a chaos run: it works jobs of a type of its own until stdin is closed.

Arguments: the conninfo, and a JSON object with ``directory`` and ``seed``.

What it writes is not fenced: it may count a job that was taken away from it meanwhile, and leave it as stopped without
having been started. So it gives a job up that it cannot be sure of, and leaves it to the reaper of the others.
"""

import json
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from tests.fixtures.go_client import GoClient
from tests.integration.chaos_parts.plan import DEAD_FOR, GO_TYPE
from tests.integration.chaos_parts.recorder import Recorder

_LONGEST_RUN = 0.2
_SURE_FOR = DEAD_FOR.total_seconds() / 2


class GoProcess:
    """Works jobs, one after the other."""

    def __init__(self, conninfo: str, recorder: Recorder, chance: random.Random) -> None:
        self._conninfo = conninfo
        self._recorder = recorder
        self._chance = chance
        self.stopping = threading.Event()

    def run(self) -> None:
        """Go on until told to stop, whatever happens to connections."""
        while not self.stopping.wait(0.1):
            with suppress(psycopg.Error), closing(psycopg.connect(self._conninfo, autocommit=True)) as connection:
                go = GoClient(connection)
                while not self.stopping.is_set():
                    if not self._work(go):
                        self.stopping.wait(0.1)

    def _work(self, go: GoClient) -> bool:
        asked_at = time.monotonic()
        row = go.start_next_job_or_nil([GO_TYPE])
        if row is None:
            return False
        # As many claims have no id here, the moment tells one from another.
        facts = {"job": row["id"], "claim": f"go {row['started_at'].timestamp():.6f}", "type": row["type"]}
        self._recorder.note("run began", **facts)
        self.stopping.wait(self._chance.uniform(0, _LONGEST_RUN))
        self._recorder.note("run ended", outcome="finished", is_lost=False, **facts)
        if time.monotonic() - asked_at < _SURE_FOR:
            go.set_job_result(row["id"], {"claim": facts["claim"]})
        return True


def main() -> None:
    conninfo, options = make_conninfo(sys.argv[1], connect_timeout=2), json.loads(sys.argv[2])
    chance = random.Random(f"{options['seed']}-go")
    process = GoProcess(conninfo, Recorder(Path(options["directory"]), "go"), chance)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(process.run)
        sys.stdin.read()
        process.stopping.set()
    running.result()


if __name__ == "__main__":
    main()
