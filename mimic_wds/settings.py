"""Frozen dataclasses from plain mappings (TOML tables): unknown keys and wrong types are told apart and named.

Used for recipes (what data) and run configs (what run), so both report mistakes the same way.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises ValueError naming the file when it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from None


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `cls` from `values`, checking names and types, nested tables included.

    `where` says where the values come from, for messages ("recipe.toml", "[criteria] in recipe.toml").
    Raises ValueError: an unknown key names the nearest known one, a wrong type names key and expected type.
    """
    check_names(cls, values, where)
    try:
        return msgspec.convert(dict(values), cls)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {error}") from None


def check_names(cls: type, values: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for a key of `values` that is no field of the dataclass `cls` (nested tables included)."""
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    for key, value in values.items():
        if key not in names:
            raise ValueError(f"{where}: unknown key {key!r}{nearest(key, names)}")
        nested = _dataclass_in(hints[key])
        if nested is not None and isinstance(value, Mapping):
            check_names(nested, value, f"{where}: [{key}]")


def nearest(word: str, known: list[str]) -> str:
    """The end of an error message: the known word that `word` was probably meant to be, or all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def parse_value(text: str) -> Any:
    """A command-line value as TOML would read it ("0.5", "true", "[1, 2]"); anything else is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def parse_assignments(assignments: typing.Iterable[str], where: str) -> dict[str, Any]:
    """["a=1", "b.c=x"] -> {"a": 1, "b": {"c": "x"}}. Raises ValueError for an item without "="."""
    result: dict[str, Any] = {}
    for item in assignments:
        name, separator, text = item.partition("=")
        if not separator or not name:
            raise ValueError(f"{where}: expected KEY=VALUE, got {item!r}")
        *tables, key = name.split(".")
        target = result
        for table in tables:
            target = target.setdefault(table, {})
            if not isinstance(target, dict):
                raise ValueError(f"{where}: {item!r} puts a key into {table!r}, which was given a value")
        target[key] = parse_value(text)
    return result


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` put on top, table by table."""
    result = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if both_tables else value
    return result


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass that an annotation holds (itself, or inside an Optional), if any."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)
