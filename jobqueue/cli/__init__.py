"""The command ``jobqueue``, which the extra ``cli`` makes complete."""

import sys
from typing import Final

_EXTRA: Final = frozenset({"click", "rich"})
_ENDED_BY_CTRL_C: Final = 130  # as shells have it


def main() -> None:
    """Run the command line of this process."""
    try:
        from jobqueue.cli.commands import program  # noqa: PLC0415 - what it needs may be missing
    except ImportError as error:
        sys.exit(f"jobqueue: {_lack(error)}")
    except KeyboardInterrupt:
        sys.exit(_ENDED_BY_CTRL_C)
    program(prog_name="jobqueue")


def _lack(error: ImportError) -> str:
    """Say in one line what to install; raise *error* when it is no lack of the installation."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _EXTRA:
        return f"the command line needs the package {error.name}: pip install 'jobqueue[cli]'"
    if "no pq wrapper available" in str(error):
        return "psycopg finds no libpq on this machine: pip install 'jobqueue[binary]'"
    raise error
