"""Packaging: metadata in one place, and every file of the package in the repository's layout."""

import configparser
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_pyproject_holds_only_build_system_and_ruff():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(table) == {"build-system", "tool"}
    assert set(table["tool"]) == {"ruff"}


def test_core_install_is_light():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    core = {re.split(r"[><=\[]", line)[0] for line in config["options"]["install_requires"].split()}
    assert core == {
        "numpy",
        "opencv-python-headless",
        "webdataset",
        "braceexpand",
        "obstore",
        "tyro",
        "rich",
        "msgspec",
        "jinja2",
    }


def test_every_folder_of_the_package_is_a_package():
    folders = {p.parent for p in (ROOT / "mimic_wds").rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_there_are_no_long_files():
    long = {
        str(p.relative_to(ROOT)): n for p in ROOT.glob("mimic_wds/**/*.py") if (n := p.read_text().count("\n")) > 400
    }
    assert not long
