"""The border between core and plugins: signatures are checked before a class is used, returned values when they come in.

A contract declares with ``returns`` how the value of a method is checked. Sub-classes inherit the check, so it holds for every
command and every caller. Methods that a step calls are checked once per object and mode; later calls cost one set lookup.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Self, TypeVar

from advgen.blame import at, kind_of, said_of
from advgen.errors import ContractError

F = TypeVar("F", bound=Callable[..., Any])

NOTHING: frozenset[tuple[str, Any]] = frozenset()
RULE, KEPT, SEEN = "_advgen_rule", "_advgen_kept", "_advgen_seen"


@dataclass(frozen=True)
class Rule:
    """Check of a method's returned value.

    Args:
        check: takes the value and the arguments of ``names``; returns the fault in words, empty if there is none.
        once: check the first call of each object, and of each mode.
    """

    check: Callable[..., str]
    names: tuple[str, ...]
    once: bool


def returns(check: Callable[..., str], *names: str, once: bool = False) -> Callable[[F], F]:
    """Declare the check of a contract method's value in sub-classes; arguments as for ``Rule``."""

    def declare(function: F) -> F:
        setattr(function, RULE, Rule(check, names, once))
        return function

    return declare


class Contract:
    """Base of the contracts, the classes that plugins sub-class. A contract is a direct sub-class of this one."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, declared in vars(_base(cls)).items():
            owner = next(each for each in cls.__mro__ if name in vars(each))
            member = vars(owner)[name]
            # A method from a mixin outside this hierarchy has no check yet.
            if _rule(declared) is None or member is declared or (owner is not cls and issubclass(owner, Contract)):
                continue
            if isinstance(member, classmethod):
                setattr(cls, name, classmethod(_checked(member.__func__, name, declared)))
            elif isinstance(member, FunctionType):
                setattr(cls, name, _checked(member, name, declared))

    def __new__(cls, *args: Any, **options: Any) -> Self:
        require_signatures(cls)
        require_methods(cls)
        return super().__new__(cls)


def _rule(member: Any) -> Rule | None:
    found: Rule | None = getattr(getattr(member, "__func__", member), RULE, None)
    return found


def _checked(own: Callable[..., Any], name: str, declared: Any) -> Callable[..., Any]:
    """Wrap a plugin's method so that its returned value is checked."""
    rule = _rule(declared)
    assert rule is not None  # the caller found one

    def check(this: Any, value: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if fault := _fault(value, rule, declared, args, options):
            raise refusal(own, f"returned {fault}", this if isinstance(this, type) else type(this), name)

    @functools.wraps(own)
    def always(this: Any, /, *args: Any, **options: Any) -> Any:
        value = own(this, *args, **options)
        check(this, value, args, options)
        return value

    said = own.__qualname__

    @functools.wraps(own)
    def once(this: Any, /, *args: Any, **options: Any) -> Any:
        value = own(this, *args, **options)
        seen, key = this.__dict__.get(SEEN, NOTHING), (said, options.get("mode"))
        if key not in seen:  # in later calls, this lookup is the only cost
            check(this, value, args, options)
            this.__dict__[SEEN] = seen | {key}
        return value

    return once if rule.once else always


def _fault(value: Any, rule: Rule, declared: Any, args: tuple[Any, ...], options: dict[str, Any]) -> str:
    try:
        call = _signature(declared).bind(*args, **options)
    except TypeError:  # the plugin calls its own method with extra arguments
        return ""
    call.apply_defaults()
    return rule.check(value, *(call.arguments[name] for name in rule.names))


def refusal(thing: Any, fault: str, owner: type | None = None, name: str | None = None) -> ContractError:
    """Return the error for a plugin's function, method or class: who and where, what came and what was expected.

    Args:
        owner: the class that the method ``name`` was called on.
    """
    return ContractError(f"{said_of(thing, owner, name)}{at(thing)} {fault}")


def require_methods(cls: type) -> None:
    """Refuse a class that lacks methods of its contract.

    Raises:
        ContractError: naming them with their expected parameters.
    """
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        base = _base(cls)
        forms = [f"{name}{_form(inspect.getattr_static(base, name))}" for name in missing]
        raise refusal(cls, f"lacks {' and '.join(missing)}, expected {', '.join(forms)} as in advgen.{base.__name__}")


def require_signatures(cls: type) -> None:
    """Refuse a class with a method that cannot be called as the core calls it, or an attribute of the wrong type.

    Raises:
        ContractError: naming the first, what it has and what is expected.
    """
    if KEPT in vars(cls):
        return
    for name, declared in _declared(_base(cls)):
        own = inspect.getattr_static(cls, name)
        if own is not declared:
            _require_alike(cls, name, own, declared)
    setattr(cls, KEPT, True)


def object_fault(thing: Any, protocol: type) -> str:
    """Describe a missing or wrong method of a protocol, in words for after "returned"; empty if there is none."""
    for name, declared in vars(protocol).items():
        if not isinstance(declared, FunctionType) or (name.startswith("_") and name != "__len__"):
            continue
        own = None if isinstance(thing, type) else getattr(thing, name, None)
        if not callable(own):
            expected = f"a {protocol.__name__} (advgen.{protocol.__name__}) with {name}{_form(declared)}"
            return f"{kind_of(thing)}, expected {expected}"
        if (came := _unfit(own, declared)) is not None:
            return f"a {kind_of(thing)} whose {name} takes {came}, expected {_form(declared)}"
    return ""


def require_callable(function: Any, declared: Callable[..., Any], who: str) -> None:
    """Refuse an object that cannot be called with the parameters of a protocol's method.

    Raises:
        ContractError: naming its parameters.
    """
    wanted = _form(declared)
    if not callable(function):
        raise ContractError(f"{who} is {kind_of(function)}, expected a function {wanted}")
    if (came := _unfit(function, declared)) is not None:
        raise ContractError(f"{who}{at(function)} takes {came}, expected {wanted}")


def _base(cls: type) -> type:
    """Return the contract of a class."""
    return next(each for each in cls.__mro__ if Contract in each.__bases__)


def _declared(base: type) -> Iterator[tuple[str, Any]]:
    """List the public methods and attributes of a contract, and its ``__init__``."""
    for name, member in vars(base).items():
        if not name.startswith("_") or (name == "__init__" and isinstance(member, FunctionType)):
            yield name, member


def _require_alike(cls: type, name: str, own: Any, declared: Any) -> None:
    if not isinstance(declared, FunctionType | classmethod):
        if fault := _attribute_fault(own, declared):
            raise refusal(cls, f"has {name} = {fault}")
        return
    if not isinstance(own, FunctionType | classmethod | staticmethod):
        raise refusal(cls, f"has {name} = {own!r}, a {kind_of(own)}, expected a method {name}{_form(declared)}")
    if isinstance(declared, classmethod) and isinstance(own, FunctionType):
        raise refusal(own, f"is a plain method, expected a @classmethod {name}{_form(declared)}", cls, name)
    function, first = getattr(own, "__func__", own), () if isinstance(own, staticmethod) else (cls,)
    if (came := _unfit(function, declared, *first)) is not None:
        raise refusal(own, f"takes {came}, expected {_form(declared)}", cls, name)


def _attribute_fault(own: Any, declared: Any) -> str:
    """Compare an attribute with the type of the contract's default; properties are not checked."""
    kind: Any = type(declared)
    if declared is None or (hasattr(own, "__get__") and not isinstance(own, FunctionType)):
        return ""
    if isinstance(declared, Mapping):
        kind = Mapping
    elif isinstance(declared, tuple):
        kind = Sequence
    elif kind is float:
        kind = float | int
    said = "number" if declared is not None and type(declared) is float else kind.__name__
    return "" if isinstance(own, kind) else f"{own!r}, a {kind_of(own)}, expected a {said}"


def _unfit(own: Any, declared: Any, *first: Any) -> str | None:
    """Return the parameters of a function that cannot be called as the contract's method; None if it can.

    The core passes keyword-only arguments of the contract by name and all others by position.

    Args:
        first: the object or class that is passed first.
    """
    wanted = _signature(declared).parameters.values()
    places = [each.name for each in wanted if each.kind is each.POSITIONAL_OR_KEYWORD]
    names = {each.name: None for each in wanted if each.kind is each.KEYWORD_ONLY}
    try:
        signature = inspect.signature(own)
    except (TypeError, ValueError):  # builtins may have no signature
        return None
    try:
        signature.bind(*first, *places, **names)
    except TypeError:
        return _plain(_without_first(signature) if first else signature)
    return None


def _signature(declared: Any) -> inspect.Signature:
    """Return the signature of a contract's method without ``self`` or ``cls``."""
    return _without_first(inspect.signature(getattr(declared, "__func__", declared)))


def _without_first(signature: inspect.Signature) -> inspect.Signature:
    parameters = list(signature.parameters.values())
    places = parameters[:1] and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    return signature.replace(parameters=parameters[1:]) if places else signature


def _form(declared: Any) -> str:
    return _plain(_signature(declared))


def _plain(signature: inspect.Signature) -> str:
    """Write a signature without types: ``(num_samples, generator, *, mode='values')``."""
    parameters = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    text = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    return re.sub(r"<[^<>]*>", "...", text)
