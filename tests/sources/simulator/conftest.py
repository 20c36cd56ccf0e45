"""Fixtures of the habitat-sim backend."""

import sys
from pathlib import Path

import pytest
from habitat_rooms import STAND_IN, Interpreter


@pytest.fixture
def habitat_log(tmp_path: Path) -> Path:
    return tmp_path / "calls.log"


@pytest.fixture
def habitat_python(tmp_path: Path, habitat_log: Path) -> Interpreter:
    """Makes an interpreter that finds the stand-in, with environment variables of its own."""

    def make(worker: str = '"$@"', modules: Path = STAND_IN, **environment: str) -> str:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        held = {"PYTHONPATH": str(modules), "TMPDIR": str(scratch), "STAND_IN_LOG": str(habitat_log), **environment}
        exports = "".join(f"export {name}='{value}'\n" for name, value in held.items())
        path = tmp_path / f"python{len(list(tmp_path.glob('python*')))}"
        path.write_text(f"#!/bin/sh\n{exports}exec '{sys.executable}' {worker}\n")
        path.chmod(0o755)
        return str(path)

    return make
