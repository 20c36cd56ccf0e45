"""Every script answers --help, and every config is one that the trainer can read."""

import sys
from pathlib import Path

import pytest
from processes import run

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*ROOT.glob("train/*.py"), *ROOT.glob("finetune/*.py"), *ROOT.glob("tools/*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_help(script):
    done = run([sys.executable, script, "--help"], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert script.name in done.stdout


@pytest.mark.parametrize("config", sorted(ROOT.glob("train/configs/*.toml")), ids=lambda p: p.name)
def test_configs_are_complete_and_begin_with_their_command(config):
    from mimic_wds.training.config import read_config

    read_config(config)
    first = config.read_text().splitlines()[0]
    assert first.startswith("# accelerate launch")
    assert config.name in first
