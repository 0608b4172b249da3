"""Lists of millions of rows: a page costs what it shows, and nothing counts to the end."""

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from django.core.paginator import Paginator

# Django's own class takes no parameters.
if TYPE_CHECKING:
    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator

MOST_COUNTED: Final = 10_000


class MoreThan(int):
    """A number beyond which nobody has counted."""

    def __str__(self) -> str:
        return f"{int(self):,}+"

    __repr__ = __str__


class BoundedPaginator(_Paginator):
    """Counts 10,000 rows at most; what is behind them is found by filters, or a search."""

    @cached_property
    def count(self) -> int:
        """The number of rows, as far as it was counted."""
        rows: Any = self.object_list
        counted: int = rows.order_by()[: MOST_COUNTED + 1].count()
        return counted if counted <= MOST_COUNTED else MoreThan(MOST_COUNTED)
