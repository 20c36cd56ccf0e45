"""Conditions on the fields of a sample, as text: `overlap > 0.6 and not scene in ("a", "b")`.

A small language with Python's grammar, read by `ast` and never evaluated as Python: comparisons, and/or/not, in,
+ - * / // %, the functions abs, len, max and min, [number] of a list. Everything is checked before the first sample is
read: names, and that numbers are compared with numbers. Texts can only be compared and searched, so that no condition
needs more than a moment for a sample.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

from mimic_wds.settings import nearest
from mimic_wds.storage.sample import Fields

#: Longest condition, and how deep its parts may be nested.
MAX_LENGTH, MAX_DEPTH = 10_000, 60

#: What a part of an expression is: ("number", 4) is a list of 4 numbers; the length of others is 0.
Type: TypeAlias = tuple[Literal["number", "text", "truth"], int]

#: Gives the value of a part for the fields of a sample.
Value: TypeAlias = Callable[[Any], Any]

NUMBER: Type = ("number", 0)
TEXT: Type = ("text", 0)
TRUTH: Type = ("truth", 0)

_ARITHMETIC: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {"abs": abs, "len": len, "max": max, "min": min}


@dataclass(frozen=True, slots=True)
class Expression:
    """A condition that was checked."""

    text: str
    value: Value

    def holds(self, key: str, facts: object) -> bool:
        """Whether it is true of a sample: `facts` has its fields as attributes.

        Raises ValueError when it divides by zero, or numbers are too large for it.
        """
        try:
            return bool(self.value(_Sample(key, facts)))
        except ArithmeticError as error:
            raise ValueError(f"the condition {self.text!r} has no value here: {error}") from None


def all_of(conditions: Sequence[Expression]) -> Expression:
    """The condition that all of these hold."""
    text = " and ".join(f"({condition.text})" for condition in conditions)
    return Expression(text, lambda sample: all(condition.value(sample) for condition in conditions))


@dataclass(frozen=True, slots=True)
class _Sample:
    """What the names in a condition are looked up in."""

    key: str
    facts: Any


def parse(text: str, fields: Fields, where: str = "--where") -> Expression:
    """Read a condition on these fields of a sample, and on its `key`.

    Raises ValueError that shows the place with a caret, for anything that is no condition.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"{where}: a condition may have {MAX_LENGTH:,} characters, this one has {len(text):,}")
    line = " ".join(text.split()) if "\n" in text or "\r" in text else text.strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd literals; they are refused or harmless
            tree = ast.parse(line, mode="eval")
    except SyntaxError as error:
        raise ValueError(_shown(where, f"not a condition: {error.msg}", line, (error.offset or 1) - 1, 1)) from None
    except (ValueError, RecursionError, MemoryError):
        raise ValueError(f"{where}: not a condition, or nested too deeply") from None
    return Expression(line, _Compiler(line, fields, where).condition(tree.body))


@dataclass(frozen=True, slots=True)
class _Compiler:
    """Turns the parts of one condition into functions."""

    line: str
    fields: Fields
    where: str

    def condition(self, node: ast.expr, depth: int = 0) -> Value:
        """A part that is true or false. Raises ValueError."""
        return self._of(TRUTH, node, depth, "a condition (true or false)")

    def _part(self, node: ast.expr, depth: int) -> tuple[Type, Value]:
        """Any part: what it is, and its value."""
        if depth > MAX_DEPTH:
            self._fail(node, f"nested more than {MAX_DEPTH} deep")
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name():
                return self._name(node)
            case ast.BoolOp():
                return TRUTH, self._logic(node, depth)
            case ast.UnaryOp():
                return self._sign(node, depth)
            case ast.BinOp():
                return NUMBER, self._arithmetic(node, depth)
            case ast.Compare():
                return TRUTH, self._comparison(node, depth)
            case ast.Subscript():
                return NUMBER, self._item(node, depth)
            case ast.Call():
                return NUMBER, self._call(node, depth)
        self._fail(node, f"{_kind(node)} cannot be used here")

    def _constant(self, node: ast.Constant) -> tuple[Type, Value]:
        value = node.value
        kinds: Mapping[type, Type] = {bool: TRUTH, int: NUMBER, float: NUMBER, str: TEXT}
        if type(value) not in kinds:
            self._fail(node, "expected a number, a text in quotes, True or False")
        return kinds[type(value)], lambda sample: value

    def _name(self, node: ast.Name) -> tuple[Type, Value]:
        name = node.id
        if name == "key":
            return TEXT, lambda sample: sample.key
        if name not in self.fields:
            self._fail(node, f"unknown field {name!r}{nearest(name, [*self.fields, 'key'])}")
        kind = self.fields[name]
        if isinstance(kind, tuple):
            return ("number", len(kind)), lambda sample: getattr(sample.facts, name)
        return (TEXT if kind is str else NUMBER), lambda sample: getattr(sample.facts, name)

    def _logic(self, node: ast.BoolOp, depth: int) -> Value:
        values = [self.condition(part, depth + 1) for part in node.values]
        if isinstance(node.op, ast.And):
            return lambda sample: all(value(sample) for value in values)
        return lambda sample: any(value(sample) for value in values)

    def _sign(self, node: ast.UnaryOp, depth: int) -> tuple[Type, Value]:
        if isinstance(node.op, ast.Not):
            value = self.condition(node.operand, depth + 1)
            return TRUTH, lambda sample: not value(sample)
        if not isinstance(node.op, ast.USub | ast.UAdd):
            self._fail(node, "~ cannot be used here")
        number, factor = self._number(node.operand, depth), -1 if isinstance(node.op, ast.USub) else 1
        return NUMBER, lambda sample: factor * number(sample)

    def _arithmetic(self, node: ast.BinOp, depth: int) -> Value:
        function = _ARITHMETIC.get(type(node.op))
        if function is None:
            self._fail(node, f"{_kind(node.op)} cannot be used here; known: + - * / // %")
        left, right = self._number(node.left, depth), self._number(node.right, depth)
        return lambda sample: function(left(sample), right(sample))

    def _comparison(self, node: ast.Compare, depth: int) -> Value:
        steps, left = [], node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            steps.append(self._step(left, op, right, depth + 1))
            left = right
        return steps[0] if len(steps) == 1 else lambda sample: all(step(sample) for step in steps)

    def _step(self, left: ast.expr, op: ast.cmpop, right: ast.expr, depth: int) -> Value:
        """One comparison of a chain like 0.5 < overlap < 0.6."""
        if isinstance(op, ast.In | ast.NotIn):
            found = self._member(left, right, depth)
            return found if isinstance(op, ast.In) else lambda sample: not found(sample)
        function = _COMPARISONS.get(type(op))
        if function is None:
            self._fail(right, f"{_kind(op)} cannot be used here; known: == != < <= > >= in, not in")
        (type0, value0), (type1, value1) = self._part(left, depth), self._part(right, depth)
        if type0 != type1 or type0[1] or (type0 == TRUTH and type(op) not in (ast.Eq, ast.NotEq)):
            self._fail(right, f"{_named(type0)} cannot be compared with {_named(type1)}")
        return lambda sample: function(value0(sample), value1(sample))

    def _member(self, left: ast.expr, right: ast.expr, depth: int) -> Value:
        """`left in right`: a text in a text, a value among values, a number in a list."""
        kind, value = self._part(left, depth)
        if isinstance(right, ast.Tuple | ast.List | ast.Set):
            options = [self._of(kind, part, depth + 1, _named(kind)) for part in right.elts]
            if all(isinstance(part, ast.Constant) for part in right.elts):
                known = frozenset(part.value for part in right.elts if isinstance(part, ast.Constant))
                return lambda sample: value(sample) in known
            return lambda sample: any(value(sample) == option(sample) for option in options)
        other, whole = self._part(right, depth)
        if (kind, other) != (TEXT, TEXT) and not (kind == NUMBER and other[1]):
            self._fail(right, f"{_named(kind)} cannot be looked for in {_named(other)}")
        return lambda sample: value(sample) in whole(sample)

    def _item(self, node: ast.Subscript, depth: int) -> Value:
        (_, length), value = self._part(node.value, depth + 1)
        index = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if not length:
            self._fail(node.value, "is no list: only a list has [number]")
        if type(index) is not int or not 0 <= index < length:
            self._fail(node.slice, f"expected a whole number from 0 to {length - 1}")
        return lambda sample: value(sample)[index]

    def _call(self, node: ast.Call, depth: int) -> Value:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _FUNCTIONS:
            self._fail(node.func, f"unknown function; known: {', '.join(_FUNCTIONS)}")
        function = _FUNCTIONS[name]
        if node.keywords or not node.args or (len(node.args) > 1 and name in ("abs", "len")):
            self._fail(node, f"{name} takes {'one value' if name in ('abs', 'len') else 'values'} in parentheses")
        if len(node.args) == 1 and name != "abs":
            kind, value = self._part(node.args[0], depth + 1)
            if not (kind[1] or (name == "len" and kind == TEXT)):
                self._fail(node.args[0], f"{name} of {_named(kind)} cannot be taken")
            return lambda sample: function(value(sample))
        numbers = [self._number(argument, depth) for argument in node.args]
        return lambda sample: function(*(number(sample) for number in numbers))

    def _number(self, node: ast.expr, depth: int) -> Value:
        return self._of(NUMBER, node, depth + 1, "a number")

    def _of(self, wanted: Type, node: ast.expr, depth: int, name: str) -> Value:
        """A part that must be of this type."""
        kind, value = self._part(node, depth)
        if kind != wanted:
            self._fail(node, f"expected {name}, this is {_named(kind)}")
        return value

    def _fail(self, node: ast.AST, message: str) -> NoReturn:
        """Raise ValueError that points at a part."""
        start = getattr(node, "col_offset", 0)
        stop = getattr(node, "end_col_offset", None) or start + 1
        line = self.line.encode()  # ast counts bytes
        first = len(line[:start].decode("utf-8", "replace"))
        raise ValueError(
            _shown(self.where, message, self.line, first, len(line[start:stop].decode("utf-8", "replace")))
        )


def _shown(where: str, message: str, line: str, start: int, length: int) -> str:
    """A message, the condition, and carets below the part that it is about; only its surroundings when it is long."""
    length = min(max(1, length), 60)
    cut = max(0, start - 60)
    shown, start = line[cut : start + length + 60], start - cut
    return f"{where}: {message}\n    {shown}\n    {' ' * start}{'^' * length}"


def _named(kind: Type) -> str:
    """A type in words."""
    if kind[1]:
        return f"a list of {kind[1]} numbers"
    return {"number": "a number", "text": "a text", "truth": "true or false"}[kind[0]]


def _kind(node: ast.AST) -> str:
    """What a part is that is not known here."""
    names: dict[type, str] = {ast.Pow: "**", ast.MatMult: "@", ast.Is: "is", ast.IsNot: "is not"}
    return names.get(type(node), f"{type(node).__name__.lower()}")
