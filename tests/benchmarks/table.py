"""Figures of contestants, what they amount to beside each other, and the table of them. Nothing here runs anything."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import attrs

Answers = Mapping[str, Sequence[Mapping[str, Any]]]
"""What each contestant has answered, round by round: one that failed, or is not installed, is not there."""

Measure = Callable[[Mapping[str, Any]], float]

LEGEND: Final = """\
floor: the same statements by bare psycopg; ours, as a reference: another of our own works; medians over the rounds
compared: the ratio of the medians, or their difference where it is signed; in brackets: the least and the greatest of
the rounds' own; without enough rounds, and with --quick, no target is judged"""

_HEADINGS: Final = ("work", "ours", "reference", "compared", "(min - max)", "target", "met")


@attrs.frozen
class Target:
    """What a comparison is to come to."""

    bound: float
    at_least: bool

    def is_met_by(self, value: float) -> bool:
        """Whether *value* is on the right side."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


def at_least(bound: float) -> Target:
    """More is better."""
    return Target(bound, at_least=True)


def at_most(bound: float) -> Target:
    """Less is better."""
    return Target(bound, at_least=False)


@attrs.frozen(kw_only=True)
class Line:
    """One line of the table: what of two contestants is put side by side."""

    work: str
    ours: str
    """The contestant whose figure it is."""
    measure: Measure
    unit: str = "jobs/s"
    reference: str | None = None
    """The contestant that it is compared with, if any."""
    constant: float | None = None
    """What it is compared with, if that is no contestant."""
    by: Literal["ratio", "difference"] = "ratio"
    reference_measure: Measure | None = None
    """What of the reference is taken; None: the same."""
    target: Target | None = None


@attrs.frozen(kw_only=True)
class Result:
    """What a line has come to: medians over the rounds, and each round's figures."""

    line: Line
    ours: float
    reference: float | None
    compared: float | None
    """The ratio, or difference, of the medians."""
    spread: tuple[float, float] | None
    """The least and the greatest of the rounds' own."""
    rounds: Sequence[tuple[float, float | None]]

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None when there is none."""
        if self.line.target is None:
            return None
        return self.line.target.is_met_by(self.ours if self.compared is None else self.compared)


def result_of(line: Line, answers: Answers) -> Result | None:
    """Return what *line* has come to; None when a contestant of it has no answers."""
    if line.ours not in answers or (line.reference is not None and line.reference not in answers):
        return None
    ours = [line.measure(answer) for answer in answers[line.ours]]
    reference = _reference_figures(line, answers, len(ours))
    rounds = list(zip(ours, reference, strict=True))
    each = [_compared(line, own, other) for own, other in rounds if other is not None]
    other = statistics.median(value for value in reference if value is not None) if each else None
    return Result(
        line=line,
        ours=statistics.median(ours),
        reference=other,
        compared=None if other is None else _compared(line, statistics.median(ours), other),
        spread=(min(each), max(each)) if each else None,
        rounds=rounds,
    )


def _reference_figures(line: Line, answers: Answers, rounds: int) -> Sequence[float | None]:
    if line.reference is None:
        return [line.constant] * rounds
    measure = line.reference_measure or line.measure
    return [measure(answer) for answer in answers[line.reference]]


def _compared(line: Line, ours: float, reference: float) -> float:
    return ours - reference if line.by == "difference" else ours / reference


def table_of(results: Sequence[Result]) -> str:
    """Return the table of *results* as text."""
    rows = [_HEADINGS, *map(_cells, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cells(result: Result) -> tuple[str, ...]:
    line = result.line
    reference = "" if result.reference is None else f"{number(result.reference)}  {line.reference or 'ideal'}"
    return (
        line.work,
        f"{number(result.ours)} {line.unit}",
        reference,
        "" if result.compared is None else _comparison(line, result.compared),
        "" if result.spread is None else " - ".join(_comparison(line, value) for value in result.spread),
        "" if line.target is None else str(line.target),
        {True: "yes", False: "NO", None: ""}[result.is_met],
    )


def _comparison(line: Line, value: float) -> str:
    return f"{value:+.1f}" if line.by == "difference" else f"{value:.2f}"


def number(value: float) -> str:
    """Return *value* with three digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def json_of(result: Result) -> dict[str, Any]:
    """Return *result* as it is stored."""
    line = result.line
    return {
        "work": line.work,
        "unit": line.unit,
        "ours": result.ours,
        "reference": line.reference or ("ideal" if line.constant is not None else None),
        "reference_value": result.reference,
        "compared_by": line.by,
        "compared": result.compared,
        "spread": result.spread,
        "target": None if line.target is None else str(line.target),
        "met": result.is_met,
        "rounds": result.rounds,
    }


# --- what of an answer is looked at


def rate(answer: Mapping[str, Any]) -> float:
    """Jobs per second."""
    return float(answer["jobs"] / answer["seconds"])


def value_of(key: str, scale: float = 1.0) -> Measure:
    """Return what takes *key* of an answer, times *scale*."""
    return lambda answer: float(answer[key]) * scale


def per_job(key: str, scale: float = 1.0) -> Measure:
    """Return what takes *key* of an answer for each job, times *scale*."""
    return lambda answer: answer[key] * scale / answer["jobs"]
