"""Statements that list the jobs that a filter means, and act on them."""

from collections.abc import Mapping
from typing import Final, LiteralString

from jobqueue_pg.queries.columns import JOB_COLUMNS, NOW
from jobqueue_pg.queries.managing import DELETE_AFTER, DELETE_BEFORE, HAS_FAILED, RESET_AFTER, RESET_BEFORE

# The text is found as it is, whatever it holds. How many jobs have it nobody knows beforehand: as written here, it is
# expected to be few, so that not the whole list is looked through for them where an index leads to the failed jobs.
_HAS_ERROR: Final = """j.error_msg is not null
    and sign(strpos(lower(j.error_msg), lower(%(error)s::text))) = 1"""

_LISTED: Final[Mapping[str, LiteralString]] = {
    "type": 'j."type" = %(type)s',
    "origin": "j.origin = %(origin)s",
    "bundle_id": "j.bundle_id = %(bundle_id)s",
    "error": _HAS_ERROR,
    "older_than": f"j.created_at <= {NOW} - %(older_than)s::interval",
    "newer_than": f"j.created_at >= {NOW} - %(newer_than)s::interval",
    "ids": "j.id = any(%(ids)s::uuid[])",
}

# The same as STATE, in terms of the columns that there are statistics of, and indexes.
_NOT_STOPPED: Final = "j.cancelled_at is null and j.stopped_at is null"
_STOPPED: Final = "j.cancelled_at is null and j.stopped_at is not null"
_LISTED_IN_STATE: Final[Mapping[str, LiteralString]] = {
    "cancelled": "j.cancelled_at is not null",
    "failed": f"{_STOPPED} and j.error_msg is not null",
    "succeeded": f"{_STOPPED} and j.error_msg is null",
    "running": f"{_NOT_STOPPED} and j.started_at is not null",
    "retrying": f"{_NOT_STOPPED} and j.started_at is null and j.run_count > 0",
    "scheduled": f"{_NOT_STOPPED} and j.started_at is null and j.run_count <= 0 and j.start_at > {NOW}",
    "available": f"{_NOT_STOPPED} and j.started_at is null and j.run_count <= 0"
    f" and (j.start_at is null or j.start_at <= {NOW})",
}

_QUEUE: Final = "{schema}.job"
# With the columns that the archive does not have.
_ARCHIVE: Final = """(
  select a.*, null::uuid as claim_id, null::timestamptz as worker_alive_at, null::text as unique_key,
    null::text as unique_key_spent, null::text as unique_for, null::timestamptz as unique_until
  from {schema}.job_archive a
)"""


def _conditions(parameters: Mapping[str, object]) -> LiteralString:
    """Return the conditions for those *parameters* that are not None.

    One statement for all of them would be planned for none, and could use no index.
    """
    conditions: list[LiteralString] = [condition for name, condition in _LISTED.items() if parameters[name] is not None]
    if (state := parameters["state"]) is not None:
        conditions.append(_LISTED_IN_STATE[str(state)])
    which: LiteralString = " and ".join(conditions) or "true"
    return which


def _place(table: LiteralString, parameters: Mapping[str, object]) -> LiteralString:
    """Return the condition of being behind a place: that of the row, as long as it is there.

    What was read of it may be rounded.
    """
    if parameters["after_id"] is None:
        return "true"
    return f"""(j.created_at, j.id) < (
      coalesce(
        (select a.created_at from {table} a where a.id = %(after_id)s::uuid), %(after_created_at)s::timestamptz
      ),
      %(after_id)s::uuid
    )"""


def list_jobs(parameters: Mapping[str, object]) -> LiteralString:
    """Return the statement that lists the jobs that *parameters* mean, the newest first."""
    table: LiteralString = _ARCHIVE if parameters["archived"] else _QUEUE
    return f"""
select {JOB_COLUMNS} from {table} j
where {_conditions(parameters)} and {_place(table, parameters)}
order by j.created_at desc, j.id desc
limit %(limit)s
"""


def find_jobs(parameters: Mapping[str, object]) -> LiteralString:
    """Return the statement that finds the ids of those jobs, and the place of each as the server spells it."""
    return f"""
select j.id, j.created_at::text from {_QUEUE} j
where {_conditions(parameters)} and {_place(_QUEUE, parameters)}
order by j.created_at desc, j.id desc
limit %(limit)s
"""


def replay_found(parameters: Mapping[str, object]) -> LiteralString:
    """Return the statement that makes *found* jobs as good as new, if they still are what *parameters* mean."""
    return f"{RESET_BEFORE} j.id = any(%(found)s::uuid[]) and {HAS_FAILED} and {_conditions(parameters)} {RESET_AFTER}"


def delete_found(parameters: Mapping[str, object]) -> LiteralString:
    """Return the statement that deletes *found* jobs, if they still are what *parameters* mean."""
    return f"{DELETE_BEFORE} j.id = any(%(found)s::uuid[]) and {_conditions(parameters)} {DELETE_AFTER}"


def count_jobs(parameters: Mapping[str, object]) -> LiteralString:
    """Return the statement that counts the jobs that *parameters* mean."""
    return f"select count(*) from {_QUEUE} j where {_conditions(parameters)}"


def estimate_jobs(parameters: Mapping[str, object]) -> LiteralString:
    """Return the statement that says how many jobs the planner takes *parameters* to mean."""
    return f"explain (format json) select from {_QUEUE} j where {_conditions(parameters)}"
