"""What benchmarks make of figures: ratios, spreads, targets and the table. Nothing is measured here."""

import argparse
from contextlib import contextmanager

import attrs
import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks.contract import percentiles
from tests.benchmarks.race import Contestant, Race, Row
from tests.benchmarks.rows.catalog import ROWS
from tests.benchmarks.rows.scale import QUICK, Scale
from tests.benchmarks.server import NotDurableError, Server, url_of
from tests.benchmarks.table import (
    Line,
    at_least,
    at_most,
    json_of,
    number,
    per_job,
    rate,
    result_of,
    table_of,
    value_of,
)


def drains(*seconds: float) -> list[dict[str, float]]:
    return [{"seconds": each, "jobs": 1200} for each in seconds]


@attrs.frozen
class Answering(Contestant):
    """A program that answers at once, or fails."""

    module: str = "contestants.any"
    work: str = "any"
    fails: bool = False

    def command(self, python, dsn):
        return [python, "-c", "raise SystemExit(1)" if self.fails else "print('{\"jobs\": 1}')"]


class Nowhere(Server):
    """A server whose databases nobody looks into."""

    @contextmanager
    def fresh_database(self):
        yield ""


NOWHERE = Nowhere("", "18", {})


BESIDE = Line(work="drain", ours="ours", reference="floor", measure=rate, target=at_least(0.7))


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_the_rounds():
    """One slow round moves the spread, and not the ratio."""
    result = result_of(BESIDE, {"ours": drains(2, 12, 2), "floor": drains(1, 1, 1.5)})
    assert result is not None
    assert (result.ours, result.reference, result.compared) == (600, 1200, 0.5)
    assert result.spread == pytest.approx((1 / 12, 0.75))
    assert result.rounds == [(600, 1200), (100, 1200), (600, 800)]
    assert result.is_met is False


def test_a_difference_is_in_the_unit_of_the_figures():
    """What is ours alone is what the floor does not need."""
    line = Line(
        work="Python", ours="ours", reference="floor", by="difference", measure=value_of("cpu", 1e6), target=at_most(20)
    )
    result = result_of(line, {"ours": [{"cpu": 30e-6}], "floor": [{"cpu": 12e-6}]})
    assert result is not None
    assert result.compared == pytest.approx(18)
    assert result.is_met is True


def test_without_a_reference_the_figure_itself_is_judged():
    """A bound on a figure needs nothing beside it."""
    line = Line(work="connections", ours="ours", measure=value_of("connections"), target=at_most(4))
    for connections, is_met in ((4, True), (5, False)):
        result = result_of(line, {"ours": [{"connections": connections}]})
        assert result is not None
        assert (result.compared, result.spread, result.is_met) == (None, None, is_met)


def test_a_constant_takes_the_place_of_a_reference():
    """What threads could do at best is no contestant."""
    line = Line(work="waiting", ours="ours", constant=8000, measure=rate)
    result = result_of(line, {"ours": drains(0.3)})
    assert result is not None
    assert (result.reference, result.compared, result.is_met) == (8000, 0.5, None)
    assert "8,000  ideal" in table_of([result])


@pytest.mark.parametrize("missing", ["ours", "floor"])
def test_who_has_no_answers_has_no_line(missing):
    """A peer that is not installed, or a contestant that failed, leaves no figure behind."""
    answers = {"ours": drains(1), "floor": drains(1)}
    del answers[missing]
    assert result_of(BESIDE, answers) is None


def test_the_table_has_a_line_for_each_result():
    """Columns line up; what is met and what is not can be told apart."""
    met = result_of(BESIDE, {"ours": drains(1, 1), "floor": drains(1, 2)})
    missed = result_of(BESIDE, {"ours": drains(4), "floor": drains(1)})
    assert met is not None
    assert missed is not None
    assert table_of([met, missed]).splitlines() == [
        "work   ours          reference     compared  (min - max)  target  met",
        "-----  ------------  ------------  --------  -----------  ------  ---",
        "drain  1,200 jobs/s  900  floor    1.33      1.00 - 2.00  >= 0.7  yes",
        "drain  300 jobs/s    1,200  floor  0.25      0.25 - 0.25  >= 0.7  NO",
    ]


def test_what_is_stored_has_every_round():
    """Whoever doubts a median can look at what it was made of."""
    result = result_of(BESIDE, {"ours": drains(1, 2), "floor": drains(1, 1)})
    assert result is not None
    stored = json_of(result)
    assert stored["rounds"] == [(1200, 1200), (600, 1200)]
    assert (stored["compared"], stored["target"], stored["met"]) == (0.75, ">= 0.7", True)


@pytest.mark.parametrize(
    ("enough", "rounds", "judged"), [(None, 4, False), (None, 5, True), (3, 2, False), (3, 3, True)]
)
def test_a_target_is_judged_after_enough_rounds(enough, rounds, judged):
    """What few rounds say is shown, without a word on whether that is good."""
    row = Row(name="drain", contestants=[], lines=[BESIDE], rounds_enough=enough)
    [line] = row.judged_after(rounds)
    result = result_of(line, {"ours": drains(1), "floor": drains(1)})
    assert result is not None
    stored = json_of(result)
    assert (stored["compared"], stored["target"], stored["met"]) == (1, *((">= 0.7", True) if judged else (None, None)))


def test_the_round_that_warms_up_does_not_count():
    """Neither in the figures nor among the rounds that are told of; who fails in it is left out."""
    lines = list[str]()
    race = Race(server=NOWHERE, rounds=2, peers={}, peers_python="", say=lines.append)
    row = Row(name="some", contestants=[Answering("good"), Answering("bad", fails=True)], lines=[])
    assert list(race.run(row)) == [{"good": [{"jobs": 1}]}, {"good": [{"jobs": 1}, {"jobs": 1}]}]
    assert [line.partition(":")[0] for line in lines if "good" in line] == [
        "some, warm-up",
        "some, round 1 of 2",
        "some, round 2 of 2",
    ]
    assert len(race.failures) == 1


def test_long_works_are_not_warmed_up():
    """They have as many rounds as are enough, and these are all that there is."""
    lines = list[str]()
    race = Race(server=NOWHERE, rounds=5, peers={}, peers_python="", say=lines.append)
    row = Row(name="long", contestants=[Answering("good")], lines=[], rounds_enough=1)
    assert list(race.run(row)) == [{"good": [{"jobs": 1}]}]
    assert lines[0].startswith("long, round 1 of 1: good")


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (["--rounds", "0"], "--rounds is at least 1, not 0"),
        (["--jobs", "-5"], "--jobs is at least 1, not -5"),
        (["--json", "/nowhere/figures.json"], "/nowhere/figures.json is no file"),
        (["--json", "/"], "/ is no file"),
        (["--peers-python", "/nowhere/python"], "--peers-python cannot be run"),
        (["sprint"], "there is no row sprint"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_runs(refused, why, capsys):
    """Nobody waits for an hour to hear of it."""
    with pytest.raises(SystemExit) as ended:
        main(refused)
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


def test_a_server_that_could_forget_is_refused(monkeypatch, capsys):
    """Its figures would be worth nothing."""

    def running():
        raise NotDurableError("the server is not durable")

    monkeypatch.setattr("tests.benchmarks.__main__.running", running)
    with pytest.raises(SystemExit) as ended:
        main(["drain"])
    assert ended.value.code == 2
    assert "not durable" in capsys.readouterr().err


def test_figures_have_three_digits():
    """No more than can be believed."""
    assert [number(value) for value in (0.08986, 4.5684, 99.94, 28_425.4)] == ["0.0899", "4.57", "99.9", "28,425"]


def test_measures_of_an_answer():
    """Per job, and as it is."""
    answer = {"jobs": 200, "commits": 3, "p50": 0.25}
    assert per_job("commits", 1000)(answer) == 15
    assert value_of("p50", 1000)(answer) == 250


def test_percentiles_are_values_that_were_measured():
    """The p99 of few is the worst of them."""
    seconds = [number / 1000 for number in range(1, 101)]
    assert percentiles(seconds[::-1]) == {"p50": 50, "p95": 95, "p99": 99, "jobs": 100}
    assert percentiles([0.002]) == {"p50": 2, "p95": 2, "p99": 2, "jobs": 1}


def test_a_contestant_is_told_what_it_is_to_do():
    """Options that are None or False are not given, and True ones have no value."""
    options = {"jobs": 5, "batch": None, "joined": True, "rare": False, "threads": 0}
    command = Contestant("ours", "contestants.ours", "drain", options).command("python", "postgresql://x/y")
    assert command == [
        *("python", "-m", "tests.benchmarks.contestants.ours", "drain", "postgresql://x/y"),
        *("--jobs", "5", "--joined", "--threads", "0"),
    ]


def test_a_database_is_known_by_a_url():
    """Whatever is in a connection string is in the URL, as a URL has it."""
    assert url_of("host=127.0.0.1 port=5 user=u dbname=d") == "postgresql://u@127.0.0.1:5/d"
    conninfo = "host=h user=u password='p@ /' dbname=d sslmode=require application_name='a b'"
    assert url_of(conninfo) == "postgresql://u:p%40%20%2F@h/d?application_name=a%20b&sslmode=require"


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("scale", [Scale(), QUICK], ids=["usual", "quick"])
def test_every_line_names_contestants_of_its_row(name, scale):
    """No line is silently without figures, no contestant without a line, and no stage is unknown."""
    row = ROWS[name](scale)
    contestants = [each.name for each in row.contestants]
    named = {line.ours for line in row.lines} | {line.reference for line in row.lines} - {None}
    assert len(set(contestants)) == len(contestants)
    assert named == set(contestants)
    assert {each.stage for each in row.contestants} - {None} == set(row.stages)


@pytest.mark.parametrize("name", ROWS)
def test_contestants_of_our_own_know_their_works_and_options(name):
    """What a row asks for is on the command line of whom it asks."""
    from tests.benchmarks.contestants import floor, ours

    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("jobs", "batch", "threads", "rate"):
        parser.add_argument(f"--{option}")
    ours.add_options(parser)
    works = {"contestants.ours": ours.WORKS, "contestants.floor": floor.WORKS}
    for each in ROWS[name](QUICK).contestants:
        if each.peer is None:
            assert each.work in works[each.module]
            parser.parse_args(each.command("python", "dsn")[5:])
