"""Shows those who ask from outside whether worker processes are ready: by a file, and by HTTP."""

import logging
import socket
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Probes:
    """Where readiness is shown.

    *file* is there while all processes are ready to work. On *address* (host and port), ``/live`` is answered with 200
    by a supervisor that lives, any other path with 200 or 503. Where the host is ``::``, that is on IPv4, too.
    """

    file: Path | None = None
    address: tuple[str, int] | None = None


class Readiness:
    """Whether all processes are ready, as it is shown."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.is_ready = False

    def show(self, is_ready: bool) -> None:  # noqa: FBT001 - it is called with nothing else
        """Show that they are, or are not; where the file does not let itself be changed, the log tells of it."""
        self.is_ready = is_ready
        try:
            self._show_by_file()
        except OSError as error:
            # Jobs that run are worth more than what is told of them.
            told = "ready" if is_ready else "not ready"
            logger.error("readiness cannot be shown (processes are %s): %s", told, error)  # noqa: TRY400

    def _show_by_file(self) -> None:
        if self._file is not None:
            if self.is_ready:
                self._file.touch()
            else:
                self._file.unlink(missing_ok=True)

    def hide(self) -> None:
        """Show that they are not ready."""
        self.show(is_ready=False)


@contextmanager
def showing(probes: Probes) -> Generator[Readiness]:
    """Show within the block what is told to the Readiness that this gives. Raises OSError: it cannot be shown there."""
    readiness = Readiness(probes.file)
    if probes.file is not None:
        _check(probes.file)
    try:
        if probes.address is None:
            yield readiness
            return
        with _served(readiness, probes.address):
            yield readiness
    finally:
        readiness.hide()


def _check(file: Path) -> None:
    """Hear now that it cannot be there, and do not show it meanwhile: probes would take that for ready."""
    try:
        file.unlink(missing_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise OSError(f"readiness cannot be shown by {file}: {error.strerror}") from error


class _OnIPv6(ThreadingHTTPServer):
    """A server that listens on IPv6, and on IPv4 where its address means all of them."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        # A system may say that it means IPv6 alone.
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


@contextmanager
def _served(readiness: Readiness, address: tuple[str, int]) -> Generator[None]:
    host, port = address
    is_ipv6 = ":" in host
    try:
        server = (_OnIPv6 if is_ipv6 else ThreadingHTTPServer)(address, _handler_for(readiness))
    except OSError as error:
        shown = f"[{host}]:{port}" if is_ipv6 else f"{host}:{port}"
        raise OSError(f"readiness cannot be shown on {shown}: {error}") from error
    thread = threading.Thread(target=server.serve_forever, name="jobqueue-probes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler_for(readiness: Readiness) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            is_well = self.path == "/live" or readiness.is_ready
            body = b"ready\n" if readiness.is_ready else b"not ready\n"
            self.send_response(HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Be silent: probes come every few seconds."""

    return Handler
