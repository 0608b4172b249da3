"""Where the demo's queue lives: on a server of its own, or in a schema of its own on somebody's."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from jobqueue.cli.demo.screen import Screen
from jobqueue.cli.demo.work import SCHEMA
from jobqueue_pg.embedded import EmbeddedServer, find_bindir

_PORT: Final = 54321
"""Where the server listens that one starts to look at data that were kept."""


@contextmanager
def open_database(screen: Screen, dsn: str | None, keep: Path | None) -> Generator[str]:
    """Give the conninfo of a database that is there within the block; say what is left behind after it.

    Raises:
        ValueError: *keep* holds something else than a server's data.
        EmbeddedServerError: there is no PostgreSQL to start, or it did not start.
    """
    if dsn is not None:
        screen.say(f'Using the database that --dsn names; all happens in its schema "{SCHEMA}".')
        yield dsn
        screen.say(f'The rows are left in schema "{SCHEMA}"; to be rid of them: drop schema {SCHEMA} cascade')
        return
    if keep is not None:
        _check_is_ours(keep)
    bindir = find_bindir()
    # No settings: what a throw-away server is used for at other times may be lost, this is the real thing.
    with EmbeddedServer(bindir, data_dir=keep, settings={}) as server:
        screen.say(f"Started PostgreSQL on port {server.port} of 127.0.0.1 (process {server.pid}).")
        yield server.conninfo
    if keep is None:
        screen.say("The server is stopped, and its data are gone; --keep DIR keeps them.")
    else:
        screen.say(_how_to_look_at(bindir, keep.absolute()))


def _check_is_ours(data_dir: Path) -> None:
    if data_dir.exists() and any(data_dir.iterdir()) and not (data_dir / "PG_VERSION").exists():
        raise ValueError(f"{data_dir} is not empty, and holds no data of a PostgreSQL server: name another directory")


def _how_to_look_at(bindir: Path, data_dir: Path) -> str:
    program = (
        "from jobqueue_pg.embedded import *; "
        f"s = EmbeddedServer(find_bindir(), data_dir={str(data_dir)!r}, port={_PORT}); s.start()"
    )
    psql = bindir / "psql"
    query = f"select type, payload, run_count, rescue_count, result from {SCHEMA}.job order by id"
    return f"""\
The server is stopped; its data are kept in {data_dir}, the rows in schema "{SCHEMA}".
The same command uses them again, and adds another bundle. To look at them, start the server:
  {sys.executable} -i -c "{program}"
and in another terminal:
  {psql if psql.is_file() else "psql"} -h 127.0.0.1 -p {_PORT} -U postgres -c "{query}"
"""
