"""Imports go one way: the table below is the architecture, and this test keeps it true."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mimic_wds"

#: layer -> the layers it may import. `pairs` and `settings` hold what all others share.
ALLOWED = {
    "pairs": set(),
    "settings": set(),
    "sources": {"pairs", "settings", "geometry"},
    "colours": set(),
    "geometry": {"pairs"},
    "storage": {"pairs", "settings"},
    "executors": {"settings"},
    "curation": {"pairs", "settings", "sources", "geometry", "storage", "executors"},
    "importing": {"pairs", "settings", "sources", "geometry", "storage", "executors"},
    "loading": {"pairs", "settings", "colours", "storage"},
    "models": {"settings", "colours"},
    "training": {"settings", "models"},
    "downstream": {"pairs", "settings", "storage", "loading", "models", "training"},
    "looking": {"pairs", "settings", "sources", "geometry", "storage"},
    "cli": {
        "pairs",
        "settings",
        "sources",
        "geometry",
        "storage",
        "executors",
        "curation",
        "importing",
        "loading",
        "looking",
    },
}
MAY_USE_TORCH = {"colours", "loading", "models", "training", "downstream"}
TORCH = {"torch", "torchvision", "timm", "accelerate", "safetensors", "tensorboard", "torchmetrics"}

FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Absolute names of everything a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_layers(path):
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    names = imports(path)
    ours = {name.split(".")[1] for name in names if name.startswith("mimic_wds.")} - {"__version__"}
    assert not any(name.split(".")[0] in {"train", "finetune", "tools"} for name in names), "nothing imports a script"
    if layer != "__init__":
        assert ours - {layer} <= ALLOWED[layer], f"{layer} may not import {sorted(ours - {layer} - ALLOWED[layer])}"
    if layer not in MAY_USE_TORCH:
        assert not {name.split(".")[0] for name in names} & TORCH, f"{layer} runs without torch"
