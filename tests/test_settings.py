"""Settings from TOML and from the command line: unknown names and wrong types are named."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from mimic_wds.settings import from_mapping, merge, parse_assignments, read_toml


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0
    mode: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    steps: int = 1
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None


def test_nested_tables_become_dataclasses():
    made = from_mapping(Outer, {"steps": 3, "inner": {"rate": 2}}, "f.toml")
    assert made == Outer(steps=3, inner=Inner(rate=2.0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 1}, r"f\.toml: unknown key 'stepz'; did you mean 'steps'\?"),
        ({"inner": {"rat": 1}}, r"f\.toml: \[inner\]: unknown key 'rat'; did you mean 'rate'\?"),
        ({"maybe": {"xyz": 1}}, r"\[maybe\]: unknown key 'xyz'; known: mode, rate"),
        ({"steps": "many"}, r"f\.toml: Expected `int`, got `str` - at `\$\.steps`"),
        ({"inner": {"mode": "c"}}, r"Invalid enum value 'c' - at `\$\.inner\.mode`"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        from_mapping(Outer, values, "f.toml")


def test_command_line_values_read_like_toml():
    assert parse_assignments(["a=1", "b.c=0.5", "b.d=true", "e=some text", "f=[1, 2]"], "--set") == {
        "a": 1,
        "b": {"c": 0.5, "d": True},
        "e": "some text",
        "f": [1, 2],
    }
    with pytest.raises(ValueError, match="--set: expected KEY=VALUE, got 'novalue'"):
        parse_assignments(["novalue"], "--set")
    with pytest.raises(ValueError, match=r"'run\.x=4' puts a key into 'run', which was given a value"):
        parse_assignments(["run=3", "run.x=4"], "--set")


def test_merge_goes_table_by_table():
    assert merge({"a": 1, "t": {"x": 1, "y": 2}}, {"t": {"y": 3}, "b": 4}) == {"a": 1, "t": {"x": 1, "y": 3}, "b": 4}


def test_toml_errors_name_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"none\.toml: no such file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(ValueError, match=r"bad\.toml: not valid TOML"):
        read_toml(tmp_path / "bad.toml")
