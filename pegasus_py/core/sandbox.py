"""Jinja2, kept from harming the controller: no access to Python's insides, and a bound on time and memory.

Whoever can write the queue can run commands on the nodes anyway. This is against accidents, and for controllers that
read files written by others. What a template may use is listed here; what is not listed does not exist.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_OUTPUT = 2 * 2**20
"""Characters of a rendered text, and of every text on the way to it."""
MAX_STEPS = 100_000
"""Turns of all loops of one rendering together."""
MAX_RANGE = 10_000
MAX_ITEMS = 10_000
"""Values in one list, counted with the lists in it."""
MAX_BITS = 4096
"""Size of a whole number."""

_STEPS = " steps"
_REFUSED: tuple[type[nodes.Node], ...] = (
    nodes.Macro,
    nodes.CallBlock,
    nodes.AssignBlock,
    nodes.FilterBlock,
    nodes.Block,
    nodes.Extends,
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.EvalContextModifier,
    nodes.ScopedEvalContextModifier,
)
# fmt: off
_TEXT_METHODS = frozenset((
    "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdecimal", "isdigit",
    "islower", "isnumeric", "isspace", "isupper", "lower", "lstrip", "partition", "removeprefix",
    "removesuffix", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "swapcase", "title", "upper",
))
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "first", "float", "int", "items", "last", "length",
    "list", "lower", "map", "max", "min", "reject", "reverse", "select", "sort", "string", "title", "trim",
    "unique", "upper", "wordcount",
)
# fmt: on


class TemplateFault(Exception):
    """The template is wrong or would cost too much; the message says why."""


class UndefinedName(TemplateFault):
    """A name or attribute that is not there was used."""


def render(text: str, values: dict[str, str]) -> str:
    """Raises TemplateFault."""
    mark = _stand_in(text, values) if "\r" in text else ""
    try:
        template = _compile(text.replace("\r", mark) if mark else text)
        parts: list[str] = []
        size = 0
        for part in template.root_render_func(template.new_context({**values, _STEPS: [0]})):
            size += _checked_size(len(part))
            if size > MAX_OUTPUT:
                raise TemplateFault(f"renders to more than {MAX_OUTPUT >> 20} MiB; put the data in a file")
            parts.append(part)
    except TemplateFault:
        raise
    except jinja2.UndefinedError as error:
        raise UndefinedName(str(error.message)) from None
    except (RecursionError, MemoryError):
        raise TemplateFault("the template is nested too deeply; write it flatter") from None
    except TypeError as error:
        raise TemplateFault(
            f"the template does not render: {_line(error)}; every parameter is a text: use the filter int, or ~"
        ) from None
    except Exception as error:  # noqa: BLE001 - a template can raise whatever its operators do
        raise TemplateFault(f"the template does not render: {_line(error)}") from None
    result = "".join(parts)
    return result.replace(mark, "\r") if mark else result


@lru_cache(maxsize=256)
def names(text: str) -> frozenset[str]:
    """Names that the template uses, neither sets nor asks about ("is defined", "default"). Raises TemplateFault."""
    _compile(text)
    tree = _environment().parse(text)
    asked = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    asked += [use.node for use in tree.find_all(nodes.Filter) if use.name in ("default", "d") and use.node]
    known = {node.name for node in asked if isinstance(node, nodes.Name)} | {"range"}
    return frozenset(meta.find_undeclared_variables(tree) - known)


def _stand_in(text: str, values: dict[str, str]) -> str:
    """A character for carriage returns, which Jinja2 would turn into line feeds."""
    used = set(text).union(*values.values())
    return next(c for c in map(chr, range(0xE000, 0xF8FF)) if c not in used)


@lru_cache(maxsize=256)
def _compile(text: str) -> jinja2.Template:
    try:
        return _environment().from_string(text)
    except TemplateFault:
        raise
    except jinja2.TemplateSyntaxError as error:
        where = f"line {error.lineno} of the " if "\n" in text.strip() else ""
        raise TemplateFault(
            f"{where}template: {_line(error)}; write {{{{ '{{{{' }}}} for literal braces"
        ) from None
    except (RecursionError, MemoryError, SyntaxError):
        raise TemplateFault("the template is nested too deeply; write it flatter") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


# --- bounds


def _checked_size(size: int) -> int:
    if size > MAX_OUTPUT:
        raise TemplateFault(f"makes a text of more than {MAX_OUTPUT >> 20} MiB; put the data in a file")
    return size


def _checked_number(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise TemplateFault("makes a number that is too large")
    return value


def _weight(value: Any, left: int = MAX_ITEMS) -> int:
    """How many values a list holds, with those in its lists; stops when there are too many."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return 1
    total = 1
    for item in value:
        total += _weight(item, left - total)
        if total > left:
            raise TemplateFault(f"makes a list of more than {MAX_ITEMS:,} values")
    return total


def _bounded_list(value: Any) -> Any:
    _weight(value)
    return value


def _printed(value: Any) -> Any:
    """What may be put into a text: a text or a number, or what is undefined, which then says so itself."""
    if isinstance(value, str | int | float | jinja2.Undefined):
        return _checked_number(value)
    raise TemplateFault(f"prints a {type(value).__name__}; print texts, for example with join(' ')")


@jinja2.pass_context
def _counted(context: Context, values: Iterable[Any]) -> Iterator[Any]:
    """The values of a loop, counted for the whole rendering."""
    steps = context[_STEPS]
    for value in values:
        steps[0] += 1
        if steps[0] > MAX_STEPS:
            raise TemplateFault(f"loops more than {MAX_STEPS:,} times")
        yield value


def _range(*bounds: int) -> range:
    result = range(*bounds)
    if len(result) > MAX_RANGE:
        raise TemplateFault(f"range() gives at most {MAX_RANGE:,} numbers")
    return result


# --- filters of our own


def _quote(value: Any) -> str:
    return shlex.quote(str(_printed(value)))


def _join(values: Iterable[Any], between: str = "") -> str:
    texts: list[str] = []
    size = 0
    for value in values:
        texts.append(str(_printed(value)))
        size = _checked_size(size + len(texts[-1]) + len(between))
    return str(between).join(texts)


def _replace(value: Any, old: str, new: str, count: int = -1) -> str:
    text = str(_printed(value))
    found = text.count(old)
    _checked_size(len(text) + (min(found, count) if count >= 0 else found) * len(new))
    return text.replace(old, new, count)


def _format(pattern: str, *values: Any) -> str:
    if re.search(r"\*|[0-9]{4}", pattern):
        raise TemplateFault("format takes widths below 1000")
    return pattern % tuple(_printed(value) for value in values)


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    from jinja2.filters import do_round

    if abs(precision) > 100:
        raise TemplateFault("round takes a precision up to 100")
    return do_round(value, precision, method)  # type: ignore[arg-type]


def _of_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that would turn lists to text, for texts and numbers only."""
    return lambda value, *args: function(_printed(value), *args)


class _Bounds(NodeTransformer):
    """Puts the counting and weighing into a template's tree."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if isinstance(node, _REFUSED) or (isinstance(node, nodes.For) and node.recursive):
            raise jinja2.TemplateSyntaxError(f"{type(node).__name__.lower()} is not supported", node.lineno)
        super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.For):
            node.iter = _filtered(node.iter, " counted")
        elif isinstance(node, nodes.Concat):
            return _filtered(nodes.List(node.nodes, lineno=node.lineno), "join")
        elif isinstance(node, nodes.List | nodes.Dict) or (
            isinstance(node, nodes.Tuple) and node.ctx == "load"
        ):
            return _filtered(node, " bounded")
        return node


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Bounds().visit(source), *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        for value, other in ((left, right), (right, left)):
            if isinstance(value, str):
                if operator == "%":
                    raise TemplateFault("% on a text is not supported; use the filter format")
                _checked_size(
                    len(value) * other if isinstance(other, int) else len(value) + len(str(_printed(other)))
                )
            elif isinstance(value, list | tuple):
                if operator == "*":
                    raise TemplateFault("a list cannot be multiplied")
                return _bounded_list(super().call_binop(context, operator, left, right))
        if operator == "**":
            sizes = [n.bit_length() if isinstance(n, int) else 0 for n in (left, right)]
            if sizes[1] > 16 or sizes[0] * abs(right) > MAX_BITS:
                raise TemplateFault("makes a number that is too large")
        return _checked_number(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> None:
        """Nothing special is done for str.format, so it is refused like all methods that are not listed."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in _TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    environment = _Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        # No comments, for the shell's ${#name} is none: half a surrogate pair stands in no text.
        comment_start_string="\ud800#",
        comment_end_string="#\ud800",
        finalize=_printed,
        optimized=False,
        cache_size=0,
    )
    environment.globals = {"range": _range}
    known = environment.filters
    environment.filters = {name: known[name] for name in _FILTERS}
    for name in ("capitalize", "lower", "string", "title", "trim", "upper", "wordcount"):
        environment.filters[name] = _of_text(known[name])
    environment.filters.update(q=_quote, join=_join, replace=_replace, format=_format, round=_round)
    environment.filters.update({" counted": _counted, " bounded": _bounded_list})
    return environment
