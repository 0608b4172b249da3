"""Backends are found by the scheme of a URL, through entry points in the group ``jobqueue.backends``."""

from importlib.metadata import entry_points
from typing import Any

from jobqueue.service import Service


def connect(url: str, **options: Any) -> Service:
    """Open a service on the backend that the scheme of *url* names, as in ``postgresql://localhost/app``.

    *options* are those of the backend's own ``connect``.

    Raises:
        ValueError: no installed backend knows the scheme.
    """
    scheme, separator, _ = url.partition("://")
    known = {entry.name: entry for entry in entry_points(group="jobqueue.backends")}
    plain, plus, _ = scheme.partition("+")
    if separator and plus and plain in known:
        raise ValueError(
            f"this URL is written as SQLAlchemy takes it, with a driver: write {plain}:// in place of {scheme}://"
        )
    if not separator or scheme not in known:
        raise ValueError(
            f"no backend for {scheme + '://' if separator else 'a URL without a scheme'}: "
            f"installed are {', '.join(f'{name}://' for name in sorted(known))}"
        )
    service: Service = known[scheme].load()(url, **options)
    return service
