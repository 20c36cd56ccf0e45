"""Other tools read what we write: the same keys, the same pixels (those that are installed; the others by hand)."""

import json
import subprocess
import sys
from pathlib import Path

from samples import make_data_set

from mimic_wds.cli.main import run

TOOL = Path(__file__).parents[2] / "tools/check_interoperability.py"


def test_other_tools_find_the_same(tmp_path):
    make_data_set(tmp_path / "tiny", per_scene=(5, 7, 6))
    assert run(["card", str(tmp_path / "tiny")]) == 0
    report = tmp_path / "report.json"
    subprocess.run([sys.executable, TOOL, tmp_path / "tiny", "--json", report], check=True, capture_output=True)
    rows = {row["tool"].split()[0]: row for row in json.loads(report.read_text())}
    assert {name: rows[name]["samples"] for name in ("mimic-wds", "webdataset", "mlcroissant")} == {
        "mimic-wds": 18,
        "webdataset": 18,
        "mlcroissant": 18,
    }
    assert rows["webdataset"]["verdict"] == "the same"
    assert rows["mlcroissant"]["verdict"].startswith("the same")
