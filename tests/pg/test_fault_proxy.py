"""Faults of the network, as clients of a real server see them."""

import threading
import time
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.fixtures.fault_proxy import FaultProxy
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until

ANSWER = "select 1 + 1"


@pytest.fixture
def proxy(database):
    server = conninfo_to_dict(database)
    with FaultProxy(str(server["host"]), int(server["port"])) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy, database):
    """Connects through the proxy."""
    opened = []

    def connect(**options):
        connection = psycopg.connect(proxy.route(database), autocommit=True, **options)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def direct(database):
    """A connection that needs no proxy, to a database with a table of numbers."""
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        connection.execute("create table number (n int)")
        yield connection


@contextmanager
def in_background(work):
    """Run *work* in a thread; what it was given back, or its error, is in the list at the end."""
    came = []

    def run():
        try:
            came.append(work())
        except psycopg.Error as error:
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield came
    thread.join(30)
    assert not thread.is_alive()


def ask(connection):
    return connection.execute(ANSWER).fetchone()[0]


def is_silent(came):
    """Whether nothing has come within a moment."""
    threading.Event().wait(0.2)
    return not came


def test_what_is_said_goes_through(proxy, connect):
    """Statements and their answers pass, large ones too, and connections are counted while they are open."""
    with connect() as connection:
        long = "x" * 3_000_000
        assert connection.execute("select %s || 'y'", [long]).fetchone() == (long + "y",)
        assert proxy.num_connections == 1
        assert ask(connect()) == 2
        assert proxy.num_connections == 2
    wait_until(lambda: proxy.num_connections == 1)


def test_a_cut_resets_what_is_open_and_nothing_else(proxy, connect):
    """Open connections get an error, while they wait for an answer, too; a new one works."""
    idle, busy = connect(), connect()
    with in_background(lambda: busy.execute("select pg_sleep(30)")) as came:
        assert is_silent(came)
        proxy.cut()
        assert proxy.num_connections == 0
    assert isinstance(came[0], psycopg.OperationalError)
    with pytest.raises(psycopg.OperationalError):
        ask(idle)
    assert ask(connect()) == 2


def test_the_server_sees_a_cut(proxy, connect, direct):
    """A cut ends the server's session, and rolls back what it was doing."""
    connection = connect()
    connection.execute("begin")
    connection.execute("insert into number values (1)")
    pid = connection.info.backend_pid
    proxy.cut()
    wait_until(lambda: fetch_all(direct, "select count(*) from pg_stat_activity where pid = %s", pid) == [0])
    assert fetch_all(direct, "select n from number") == []


def test_frozen_connections_are_silent_until_they_thaw(proxy, connect, direct):
    """Nothing arrives and nothing comes back, and nobody is told; afterwards all of it does."""
    connection = connect()
    proxy.freeze()
    with in_background(lambda: connection.execute("insert into number values (1)").rowcount) as came:
        assert is_silent(came)
        assert fetch_all(direct, "select n from number") == []
        proxy.thaw()
    assert came == [1]
    assert fetch_all(direct, "select n from number") == [1]


def test_a_new_connection_through_frozen_network_hangs(proxy, connect):
    """It is accepted, and nobody speaks to it."""
    proxy.freeze()
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        connect(connect_timeout=2)
    with in_background(lambda: ask(connect())) as came:
        wait_until(lambda: proxy.num_connections >= 1)
        assert is_silent(came)
        proxy.thaw()
    assert came == [2]


def test_half_a_network_lets_only_questions_through(proxy, connect, direct):
    """What a client sends is done, and it is not told so before the thaw."""
    connection = connect()
    proxy.freeze(answers_only=True)
    with in_background(lambda: connection.execute("insert into number values (1)").rowcount) as came:
        wait_until(lambda: fetch_all(direct, "select n from number") == [1])
        assert is_silent(came)
        proxy.thaw()
    assert came == [1]


def test_a_session_that_ends_behind_a_freeze_seems_open(proxy, connect, direct):
    """A client does not learn that the server has ended its session, until the thaw."""
    connection = connect()
    proxy.freeze()
    with in_background(lambda: ask(connection)) as came:
        pid = connection.info.backend_pid
        direct.execute("select pg_terminate_backend(%s)", [pid])
        wait_until(lambda: not fetch_all(direct, "select pid from pg_stat_activity where pid = %s", pid))
        assert is_silent(came)
        proxy.thaw()
    assert isinstance(came[0], psycopg.OperationalError)


def test_a_delay_holds_up_both_directions(proxy, connect):
    """A question and its answer take twice the delay, until it is over."""
    connection = connect()
    proxy.delay(0.2)
    began = time.monotonic()
    assert ask(connection) == 2
    assert time.monotonic() - began >= 0.4
    proxy.delay(0)
    began = time.monotonic()
    for _ in range(10):
        ask(connection)
    assert time.monotonic() - began < 4  # with the delay


def test_new_connections_are_refused_until_they_are_accepted(proxy, connect):
    """The port is closed to new clients, and those that were there go on."""
    connection = connect()
    proxy.refuse()
    proxy.refuse()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect()
    assert ask(connection) == 2
    proxy.accept()
    proxy.accept()
    assert ask(connect()) == 2


def test_a_cut_between_commit_and_its_answer(proxy, connect, direct):
    """The transaction is committed and its client gets an error; as often as was asked for, and not once more."""
    proxy.cut_answer(to=b"COMMIT", times=2)
    for number in range(3):
        connection = connect()
        connection.autocommit = False
        connection.execute("insert into number values (%s)", [number])
        if number == 2:
            connection.commit()
            continue
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
        assert proxy.num_cut_answers == number + 1
    wait_until(lambda: fetch_all(direct, "select n from number order by n") == [0, 1, 2])


def test_a_trap_waits_for_its_text(proxy, connect):
    """What was sent before it was set, and what is sent without the text, springs no trap; and others are not cut."""
    connection, other = connect(), connect()
    connection.execute("select 'commit', 'COMMIT'")
    proxy.cut_answer(to=b"COMMIT")
    connection.execute("select 'commit'")
    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 'COMMIT'")
    assert ask(other) == 2
    assert proxy.num_cut_answers == 1


def test_without_its_server_it_resets(proxy, database):
    """A client of a proxy whose server is away gets an error at once."""
    with FaultProxy("127.0.0.1", proxy.port) as second:
        proxy.refuse()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(second.route(database))


def test_frozen_and_left(proxy, database):
    """A proxy can be left while it is frozen, delayed and in use; that resets its connections."""
    with ExitStack() as stack:
        second = stack.enter_context(FaultProxy("127.0.0.1", proxy.port))
        with closing(psycopg.connect(second.route(database), autocommit=True)) as connection:
            second.freeze()
            second.delay(10)
            with in_background(lambda: ask(connection)) as came:
                assert is_silent(came)
                stack.close()
            assert isinstance(came[0], psycopg.OperationalError)


def test_healed(proxy, connect):
    """Whatever was wrong, nothing is any more; not even a trap is left."""
    connection = connect()
    proxy.freeze()
    proxy.delay(10)
    proxy.refuse()
    proxy.cut_answer(to=ANSWER.encode())
    proxy.heal()
    assert ask(connection) == 2
    assert ask(connect()) == 2
    assert proxy.num_cut_answers == 0
