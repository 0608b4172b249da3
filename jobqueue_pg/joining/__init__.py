"""The caller's connection, whatever it is, as something to execute on within the caller's own transaction."""

from jobqueue_pg.joining.joined import Joined as Joined
from jobqueue_pg.joining.kinds import joined as joined
from jobqueue_pg.joining.port import Lent as Lent
