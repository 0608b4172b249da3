"""What a backend tells those who listen: facts that have been committed."""

from uuid import UUID

import attrs


@attrs.frozen(kw_only=True)
class JobAvailable:
    """*count* jobs of a type may be claimed; *id* and *origin* are the first one's."""

    id: UUID
    type: str
    origin: str
    count: int = 1


@attrs.frozen(kw_only=True)
class Connected:
    """The notifier hears again; whatever was said while it was deaf is lost, so look for yourself."""


Event = JobAvailable | Connected
