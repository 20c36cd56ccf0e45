"""`mimic-shard sources`: what can be mined, and with which options."""

import ast
import dataclasses
import inspect
import json
import textwrap
from collections.abc import Iterator

import tyro

from mimic_wds.cli.console import say
from mimic_wds.settings import nearest
from mimic_wds.sources.base import Source
from mimic_wds.sources.registry import ORIGINS, SOURCES


def sources(names: tyro.conf.Positional[tuple[str, ...]] = (), /) -> int:
    """List the sources: what each expects on disk, its options, where its data come from, and a table for a recipe.

    Example: mimic-shard sources scannet

    Args:
        names: Sources to list; default: all.

    Returns:
        0
    """
    for name in names:
        if name not in SOURCES:
            raise ValueError(f"unknown source {name!r}{nearest(name, list(SOURCES))}")
    for name in names or SOURCES:
        for line in describe(SOURCES[name]):
            say(line)
    return 0


def describe(source: type[Source]) -> Iterator[str]:
    """The lines about one source."""
    yield f"{source.name}: {source.reads}"
    meaning = meanings(source)
    for option in options(source):
        yield f"    -o {option.name}={option.default!r}  {meaning.get(option.name, '')}".rstrip()
    if origin := ORIGINS.get(source.name):
        yield f"    get it: {origin.url} ({origin.terms})"
    yield f"    example: mimic-shard build --source {source.name} PATH --out shards/my-data"
    yield "    in a recipe:"
    yield textwrap.indent(example(source), 8 * " ")


def options(source: type[Source]) -> list[dataclasses.Field[object]]:
    """The options of a source, all of which have a default."""
    fields = dataclasses.fields(source)  # type: ignore[arg-type]
    return [field for field in fields if field.name != "paths"]


def example(source: type[Source]) -> str:
    """A recipe's table (TOML) for a source with its options at their defaults, those that are empty left out."""
    values: dict[str, object] = {"source": source.name, "paths": [f"raw/{source.name}"]}
    values |= {option.name: option.default for option in options(source) if option.default != ""}
    return "\n".join(["[[sources]]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())])


def meanings(source: type[Source]) -> dict[str, str]:
    """What the comments that begin with "#:", beside or above the fields of a source, say of them.

    They are where a source's options are described, so they are read from the code; without it there are none.
    """
    found: dict[str, str] = {}
    for cls in reversed(source.__mro__):
        if dataclasses.is_dataclass(cls):
            try:
                code = textwrap.dedent(inspect.getsource(cls))
            except OSError:
                continue
            found |= _comments(code)
    return found


def _comments(code: str) -> dict[str, str]:
    """Field -> its comment, for a class definition."""
    (definition,) = ast.parse(code).body
    assert isinstance(definition, ast.ClassDef)
    lines = code.splitlines()
    return {
        node.target.id: text
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and (text := _comment(lines, node))
    }


def _comment(lines: list[str], node: ast.AnnAssign) -> str:
    """The comment at the end of a field's last line, else the lines of comment above it."""
    assert node.end_lineno is not None
    beside = lines[node.end_lineno - 1].partition("#:")[2].strip()
    above: list[str] = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.strip().startswith("#:"):
            break
        above.insert(0, line.strip().removeprefix("#:").strip())
    return beside or " ".join(above)
