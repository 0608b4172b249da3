"""How a handler wants to be called: read from its signature once, so that a run only has to fill in the values."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, cast, get_args, get_type_hints

import attrs

from jobqueue.errors import PayloadError, RegistrationError
from jobqueue.job_context import JobContext
from jobqueue.payload import structure

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a call."""

_UNANNOTATED: Final = inspect.Parameter.empty
_VARIADIC: Final = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


@attrs.frozen
class _Slot:
    """A parameter that a payload, or a key of one, goes into."""

    name: str
    annotation: Any
    required: bool
    structured: bool
    """Whether the value is made what the annotation says; without one (or with Any, object) it stays plain JSON."""

    @classmethod
    def of(cls, parameter: inspect.Parameter) -> "_Slot":
        annotation = parameter.annotation
        return cls(
            name=parameter.name,
            annotation=None if annotation is _UNANNOTATED else annotation,
            required=parameter.default is inspect.Parameter.empty,
            structured=annotation not in (_UNANNOTATED, Any, object),
        )

    def fill(self, value: object) -> Any:
        return structure(value, self.annotation) if self.structured else value


@attrs.frozen(kw_only=True)
class HandlerCall:
    """The plan of a handler's call.

    The handler may take a JobContext first. Exactly one further positional parameter takes the whole payload; several
    parameters, or keyword-only ones, take the keys of a payload that is an object, each structured to its annotation,
    those that are missing by their defaults. A handler without any takes every object, and looks at none of its keys.
    """

    name: str
    takes_context: bool
    whole: _Slot | None
    """The parameter for the whole payload, if there is one."""
    keys: Mapping[str, _Slot]
    """The parameters for keys of the payload, else."""

    @classmethod
    def of(cls, function: Callable[..., object]) -> "HandlerCall":
        """Read the signature of a function, method, ``functools.partial`` or callable object.

        Raises:
            RegistrationError: it is not a plain function, or has parameters that a payload cannot fill.
        """
        check_plain(function)
        name = name_of(function)
        parameters = _parameters_of(function)
        takes_context = bool(parameters) and _takes_context(parameters[0])
        rest = parameters[1:] if takes_context else parameters
        for parameter in rest:
            _check_fillable(parameter, name)
        if len(rest) == 1 and rest[0].kind is not inspect.Parameter.KEYWORD_ONLY:
            return cls(name=name, takes_context=takes_context, whole=_Slot.of(rest[0]), keys={})
        for parameter in rest:
            _check_has_key(parameter, name)
        keys = {parameter.name: _Slot.of(parameter) for parameter in rest}
        return cls(name=name, takes_context=takes_context, whole=None, keys=keys)

    @property
    def payload_type(self) -> Any:
        """The annotation of the parameter for the whole payload; None when it has none, or there is no such."""
        return None if self.whole is None else self.whole.annotation

    def bind(self, context: JobContext, payload: object) -> Arguments:
        """Return the arguments for a run, made from the decoded JSON value *payload*.

        Raises:
            PayloadError: it does not fit the parameters; ``problems`` has a path and a reason for each misfit.
        """
        args = (context,) if self.takes_context else ()
        if self.whole is not None:
            return (*args, self.whole.fill(payload)), {}
        return args, self._keywords(payload)

    def check_fits(self, payload: object) -> None:
        """Raise PayloadError, as ``bind`` would, unless the decoded JSON value *payload* fits the parameters."""
        if self.whole is not None:
            self.whole.fill(payload)
        else:
            self._keywords(payload)

    def _keywords(self, payload: object) -> dict[str, Any]:
        if not isinstance(payload, dict):
            raise self._misfit([("$", "is not an object, whose keys could be parameters")])
        return self._keywords_from(cast("dict[str, object]", payload))

    def _keywords_from(self, payload: dict[str, object]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        problems: list[tuple[str, str]] = []
        for name, slot in self.keys.items():
            try:
                if name in payload:
                    values[name] = slot.fill(payload[name])
                elif slot.required:
                    problems.append((f"$.{name}", "is missing"))
            except PayloadError as error:
                problems += [(f"$.{name}{path.removeprefix('$')}", reason) for path, reason in error.problems]
        if self.keys:
            problems += [(f"$.{key}", "is not a parameter") for key in payload if key not in self.keys]
        if problems:
            raise self._misfit(problems)
        return values

    def _misfit(self, problems: Iterable[tuple[str, str]]) -> PayloadError:
        problems = tuple(problems)
        details = "; ".join(f"{path}: {reason}" for path, reason in problems)
        return PayloadError(f"the payload does not fit {self.name}: {details}", problems=problems)


def name_of(function: object) -> str:
    """Name a function for people, as ``module.QualName``; a callable object by its class."""
    if isinstance(function, partial):
        return name_of(function.func)
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def check_plain(function: object) -> None:
    """Refuse what is not called and done with: classes, coroutine functions, generators.

    Raises:
        RegistrationError: saying what it is, and what to do instead.
    """
    name = name_of(function)
    if isinstance(function, type):
        raise RegistrationError(f"{name} is a class: register a function, or an instance that has __call__")
    if not callable(function):
        raise RegistrationError(f"{function!r} cannot be called: register a function")
    called = _called_by(function)
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise RegistrationError(
            f"{name} is an async function, but jobqueue runs plain functions: call asyncio.run() within a plain one"
        )
    if inspect.isgeneratorfunction(called):
        raise RegistrationError(
            f"{name} is a generator function, of which a call runs nothing: return a value instead of yielding"
        )


def check_takes_context_and_job(function: Callable[..., object]) -> None:
    """Refuse a function that cannot be called as ``function(context, job)``.

    Raises:
        RegistrationError: saying how it would have to look.
    """
    check_plain(function)
    try:
        _signature_of(function).bind(None, None)
    except TypeError as error:
        raise RegistrationError(
            f"{name_of(function)} is called with a JobContext and a Job, but its parameters are other ones ({error}); "
            "@handler and register_func() take functions with parameters of their own"
        ) from error


def _called_by(function: Callable[..., object]) -> object:
    """Return the function whose body a call of *function* enters first, beneath partials and ``__call__``."""
    while isinstance(function, partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def _signature_of(function: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except NameError as error:  # Python 3.14 and later, where annotations are evaluated when they are asked for
        raise _unresolved(function, error) from error
    except ValueError as error:
        raise RegistrationError(
            f"Python cannot tell the parameters of {name_of(function)}: register a function that calls it"
        ) from error


def _parameters_of(function: Callable[..., object]) -> list[inspect.Parameter]:
    """List the parameters that a call still has to fill, annotations that are text resolved."""
    bound = _names_bound_by(function)
    parameters = [p for p in _signature_of(function).parameters.values() if p.name not in bound]
    hints = _resolved_hints(function, parameters)
    return [p.replace(annotation=hints.get(p.name, _UNANNOTATED)) for p in parameters]


def _names_bound_by(function: object) -> frozenset[str]:
    return frozenset(function.keywords if isinstance(function, partial) else ())


def _resolved_hints(function: Callable[..., object], parameters: Iterable[inspect.Parameter]) -> dict[str, Any]:
    # Of the parameters alone, not of the function: what it returns may well be imported for type checkers only.
    annotations = {p.name: p.annotation for p in parameters if p.annotation is not _UNANNOTATED}
    namespace = getattr(_defined_by(function), "__globals__", {})
    try:
        return get_type_hints(SimpleNamespace(__annotations__=annotations), globalns=namespace, include_extras=True)
    except Exception as error:  # an annotation that is text may be any expression
        raise _unresolved(function, error) from error


def _defined_by(function: Callable[..., object]) -> object:
    """Return the function in whose module the annotations of *function* were written."""
    function = inspect.unwrap(function)
    if isinstance(function, partial):
        return _defined_by(function.func)
    return function if inspect.isroutine(function) else inspect.unwrap(type(function).__call__)


def _unresolved(function: Callable[..., object], error: Exception) -> RegistrationError:
    return RegistrationError(
        f"the annotations of {name_of(function)} cannot be resolved ({error}): "
        "what they name must be found at the top of its module when it is registered, and not only by type checkers"
    )


def _takes_context(parameter: inspect.Parameter) -> bool:
    return _mentions_context(parameter) and parameter.kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )


def _mentions_context(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is JobContext or JobContext in get_args(parameter.annotation)


def _check_fillable(parameter: inspect.Parameter, function_name: str) -> None:
    if _mentions_context(parameter):
        raise RegistrationError(
            f"{function_name} takes a JobContext as {parameter.name!r}: only its first positional parameter can be one"
        )
    if parameter.kind in _VARIADIC:
        raise RegistrationError(
            f"{function_name} takes {_VARIADIC[parameter.kind]}{parameter.name}, but it must be known which keys a "
            "payload may have: name each parameter, or take the whole payload as one"
        )


def _check_has_key(parameter: inspect.Parameter, function_name: str) -> None:
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise RegistrationError(
            f"{function_name} takes {parameter.name!r} by its position only, but several parameters are filled by name "
            "from the keys of a payload: take the '/' out, or take the whole payload as one parameter"
        )
