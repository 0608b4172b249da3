"""Where readiness is shown: by a file, and on IPv4 and IPv6, and how these are written."""

import os
import socket
import urllib.request

import pytest

from jobqueue.cli.readiness import Probes, showing
from jobqueue.cli.worker import Address
from tests.fixtures.servers import free_port


def has_ipv6():
    """Whether this machine has it, which containers often have not."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("8081", ("127.0.0.1", 8081)),
        (":8081", ("127.0.0.1", 8081)),
        ("0.0.0.0:8081", ("0.0.0.0", 8081)),
        ("[::]:8081", ("::", 8081)),
        ("[fe80::1%eth0]:65535", ("fe80::1%eth0", 65535)),
    ],
)
def test_how_it_is_written(written, address):
    """An address of IPv6 is in brackets, as in a URL."""
    assert Address().convert(written, None, None) == address


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("host", "asked"), [("::1", ["[::1]"]), ("::", ["[::1]", "127.0.0.1"])])
def test_probes_on_ipv6(host, asked):
    """On the address of IPv6 that means all, those who ask by IPv4 are answered, too."""
    port = free_port()
    with showing(Probes(address=(host, port))) as readiness:
        readiness.show(is_ready=True)
        for each in asked:
            with urllib.request.urlopen(f"http://{each}:{port}/", timeout=5) as answer:
                assert answer.status == 200
    readiness.hide()


def test_an_address_that_cannot_be_had():
    """The message has it as it is written."""
    with (
        pytest.raises(OSError, match=r"readiness cannot be shown on \[::2\]:8081: "),
        showing(Probes(address=("::2", 8081))),
    ):
        pass


def test_the_file_is_not_there_before_they_are_ready(tmp_path):
    """Not for a moment: what a killed supervisor has left goes, and that it can be made is found out without it."""
    file, same = tmp_path / "ready", tmp_path / "same"
    file.touch()
    same.hardlink_to(file)
    os.utime(file, (0, 0))
    with showing(Probes(file=file)) as readiness:
        assert (file.exists(), same.stat().st_mtime, list(tmp_path.iterdir())) == (False, 0, [same])
        readiness.show(is_ready=True)
        assert file.exists()
    assert not file.exists()


def test_a_file_that_cannot_be_made(tmp_path):
    """It is said at once where it cannot be."""
    for file in (tmp_path / "nowhere" / "ready", tmp_path):
        with pytest.raises(OSError, match=f"readiness cannot be shown by {file}: "), showing(Probes(file=file)):
            pass
