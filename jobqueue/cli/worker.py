"""``jobqueue worker``: worker processes under a supervisor.

A framework's command has the same options, those of ``worker.params`` without target, dsn and schema, and calls
``run_workers`` with a Plan of its own.
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Final

import click

from jobqueue.cli.clean import AgeType
from jobqueue.cli.connecting import DSN, SCHEMA
from jobqueue.cli.plan import Plan
from jobqueue.cli.readiness import Probes
from jobqueue.cli.supervising import run_workers
from jobqueue.errors import InvalidJobError
from jobqueue.limits import check_type_or_pattern

_MOST_PROCESSES: Final = 256
_MOST_THREADS: Final = 1000
_LANE: Final = re.compile(r"(.+)=([1-9]\d{0,3})")
_ADDRESS: Final = re.compile(r"(?:(?:\[(?P<ipv6>[\w.%]*:[\w.:%]*)\]|(?P<host>[^:\[\]]*)):)?(?P<port>[0-9]{1,5})")
_PORT: Final = range(1, 65536)


class Types(click.ParamType[tuple[str, ...]]):
    """Types and patterns, with commas between them."""

    name = "types"

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return them."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(check_type_or_pattern("it", each.strip()) for each in value.split(","))
        except InvalidJobError as error:
            self.fail(str(error), param, ctx)


class Lane(click.ParamType[tuple[str, int]]):
    """A type or pattern, and how many threads are reserved for it."""

    name = "type=threads"

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Return both."""
        if isinstance(value, tuple):
            return value
        found = _LANE.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is no lane: it takes a type, = and a number of threads, such as mail=2", param, ctx)
        return found[1], int(found[2])


class Address(click.ParamType[tuple[str, int]]):
    """A port, or a host, : and a port."""

    name = "[host:]port"

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Return host and port."""
        if isinstance(value, tuple):
            return value
        found = _ADDRESS.fullmatch(value)
        if found is None or int(found["port"]) not in _PORT:
            message = f"{value!r} is neither a port nor host:port, such as 8081, 0.0.0.0:8081 or [::]:8081"
            self.fail(message, param, ctx)
        return found["ipv6"] or found["host"] or "127.0.0.1", int(found["port"])


def _each_once(
    ctx: click.Context, param: click.Parameter, lanes: tuple[tuple[str, int], ...]
) -> tuple[tuple[str, int], ...]:
    """Refuse two lanes for the same: which of them is meant?"""
    seen = dict[str, int]()
    for kind, threads in lanes:
        if kind in seen:
            message = f"there are two lanes for {kind!r}, of {seen[kind]} and of {threads} threads: leave one away"
            raise click.BadParameter(message, ctx, param)
        seen[kind] = threads
    return lanes


@click.command()
@click.argument("target", metavar="MODULE[:NAME]")
@DSN
@SCHEMA
@click.option("--threads", type=click.IntRange(1, _MOST_THREADS), help="Worker threads of each process.  [default: 4]")
@click.option(
    "--processes", type=click.IntRange(1, _MOST_PROCESSES), default=1, show_default=True, help="How many processes."
)
@click.option("--types", type=Types(), default=(), help="Claim jobs of these types and patterns alone: a,b:*.")
@click.option(
    "--lanes",
    type=Lane(),
    multiple=True,
    callback=_each_once,
    help="Reserve threads for a type. May be given several times.",
)
@click.option(
    "--finish-within",
    type=AgeType(),
    default="30s",
    show_default=True,
    help="How long running jobs may go on once the command is to end, such as 90s.",
)
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that is there while all processes are ready to work.",
)
@click.option("--ready-port", type=Address(), help="Where HTTP tells the same: 200 or 503; /live: always 200.")
@click.option("--log-runs", is_flag=True, help="Log the beginning and the end of each run.")
@click.pass_context
def worker(
    ctx: click.Context,
    target: str,
    dsn: str | None,
    schema: str,
    *,
    threads: int | None,
    processes: int,
    types: tuple[str, ...],
    lanes: tuple[tuple[str, int], ...],
    finish_within: timedelta,
    ready_file: Path | None,
    ready_port: tuple[str, int] | None,
    log_runs: bool,
) -> None:
    """Run jobs, in processes that are started again when they die.

    MODULE is imported in each of them, and has to register handlers. NAME, if it is given, is a worker pool that was
    not started, a service, or a function that returns one of them. Without it, the module may set a default service;
    else the command connects to the database itself.

    SIGTERM and Ctrl-C have running jobs finish, a second one has them let go. SIGHUP starts the processes anew, one
    after the other. The exit code is 0 when all jobs had ended, 3 when some had not.
    """
    plan = Plan(
        set_up="jobqueue.cli.target:load",
        arguments={"target": target, "dsn": dsn, "schema": schema},
        threads=threads,
        types=types,
        lanes=dict(lanes),
        log_runs=log_runs,
        finish_within=finish_within,
    )
    ctx.exit(run_workers(plan, processes=processes, probes=Probes(file=ready_file, address=ready_port)))
