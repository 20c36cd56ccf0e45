"""Filters of the user's own: found by path or by name, faults told apart from vetoes."""

import hashlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mimic_wds.curation.image_filter import GROUP, identity, keeps, load_image_filter
from mimic_wds.pairs import View

CODE = '''
"""Filters."""

def bright(image):
    return image.mean() > 100

def wants_two(image, other):
    return True

def forgets(image):
    image.mean() > 100

def writes(image):
    image[0, 0] = 0
    return True

class Rules:
    @staticmethod
    def dark(image):
        return bool(image.mean() <= 100)

LIMIT = 100
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a real package on sys.path, with a module of filters."""
    folder = tmp_path / "frame_rules"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "light.py").write_text(CODE)
    (folder / "broken.py").write_text("import there_is_no_such_module\n")
    (folder / "wrong.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "frame_rules"]:
        del sys.modules[name]


def install(folder: Path, *, name: str, version: str, entry_points: str) -> None:
    """Write what an installer leaves: a distribution of the package in `folder` that offers entry points."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "top_level.txt").write_text("frame_rules\n")
    (info / "RECORD").write_text("frame_rules/__init__.py,,\nframe_rules/light.py,,\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entry_points}\n")
    importlib.invalidate_caches()


def view(value: int) -> View:
    return View(image=np.full((4, 5, 3), value, np.uint8), frame="frame000007.jpg")


@pytest.mark.parametrize(
    ("spec", "kept"), [("frame_rules.light:bright", 200), ("frame_rules.light:Rules.dark", 50)], ids=["function", "in"]
)
def test_by_path(package: Path, spec: str, kept: int) -> None:
    found = load_image_filter(spec)
    assert keeps(found, spec, view(kept)) is True
    assert keeps(found, spec, view(250 - kept)) is False


def test_by_the_name_of_an_entry_point(package: Path) -> None:
    install(package, name="frame-rules", version="1.4", entry_points="bright-frames = frame_rules.light:bright")
    found = load_image_filter("bright-frames")
    assert keeps(found, "bright-frames", view(200)) is True
    assert keeps(found, "bright-frames", view(50)) is False
    assert identity("bright-frames") == "bright-frames 1.4"
    assert identity("frame_rules.light:bright") == "frame_rules.light:bright 1.4"


def test_identity_of_a_lone_file_changes_with_it(package: Path) -> None:
    file = package / "frame_rules" / "light.py"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    assert identity("frame_rules.light:bright") == f"frame_rules.light:bright sha256:{digest}"
    file.write_text(CODE.replace("100", "120"))
    assert identity("frame_rules.light:bright") != f"frame_rules.light:bright sha256:{digest}"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("there_is_no_such_package:f", r"No module named 'there_is_no_such_package'.*PYTHONPATH"),
        ("frame_rules.lihgt:bright", r"No module named 'frame_rules.lihgt'"),
        ("frame_rules.broken:f", r"No module named 'there_is_no_such_module'"),
        ("frame_rules.wrong:f", r"cannot be imported: SyntaxError"),
        ("frame_rules.light:brigth", r"did you mean frame_rules.light:bright\?"),
        ("frame_rules.light:LIMIT", r"is a int: expected a function"),
        ("frame_rules.light:", r"no image filter is called 'frame_rules.light:'.*package.module:function"),
        ("frame_rules/light.py:bright", r"no image filter is called"),
        ("", r"no image filter is called ''"),
    ],
)
def test_faults_of_the_recipe(package: Path, spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_image_filter(spec)
    with pytest.raises(ValueError, match=said):
        identity(spec)


def test_unknown_names_are_answered_with_the_known_ones(package: Path) -> None:
    points = "bright-frames = frame_rules.light:bright\nno-text = frame_rules.light:bright"
    install(package, name="frame-rules", version="1.4", entry_points=points)
    with pytest.raises(ValueError, match="did you mean 'bright-frames'"):
        load_image_filter("bright-frame")
    with pytest.raises(ValueError, match=r"installed: .*bright-frames, no-text"):
        load_image_filter("zzz")


def test_two_packages_with_one_name_are_ambiguous(package: Path) -> None:
    install(package, name="frame-rules", version="1.4", entry_points="keep = frame_rules.light:bright")
    install(package, name="other-rules", version="2.0", entry_points="keep = frame_rules.light:Rules.dark")
    with pytest.raises(ValueError, match=r"frame_rules.light:Rules.dark and frame_rules.light:bright.*by its path"):
        load_image_filter("keep")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wants_two", r"failed on frame 'frame000007.jpg': TypeError"),
        ("forgets", r"returned NoneType on frame 'frame000007.jpg'"),
        ("writes", r"failed on frame 'frame000007.jpg': ValueError.*read-only"),
    ],
)
def test_faults_of_the_filter_are_no_vetoes(package: Path, name: str, said: str) -> None:
    spec = f"frame_rules.light:{name}"
    found, seen = load_image_filter(spec), view(200)
    with pytest.raises(RuntimeError, match=f"image filter '{spec}' {said}"):
        keeps(found, spec, seen)
    assert (seen.image == 200).all()
    assert seen.image.flags.writeable
