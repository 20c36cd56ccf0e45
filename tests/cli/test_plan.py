"""`mimic-shard plan`, optional sources, and the recipes of MIMIC that ship with the project."""

import tomllib
from pathlib import Path

import cv2
import pytest
from videos import texture

from mimic_wds.cli.main import run
from mimic_wds.curation.inventory import State, take_stock, totals
from mimic_wds.curation.recipe import make_entry, read_recipe
from mimic_wds.sources.registry import ORIGINS

SHARDS = Path(__file__).parents[2] / "shards"


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos" / "walk"
    folder.mkdir(parents=True)
    canvas = texture(3, 224, 400)
    for number, left in enumerate((0, 80)):
        cv2.imwrite(str(folder / f"{number}.png"), canvas[:, left : left + 224])
    return folder


def write_recipe(folder: Path, *tables: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text('out = "built"\n' + "".join(f"[[sources]]\n{table}\n" for table in tables))
    return path


PRESENT = 'source = "images"\npaths = ["photos"]\nexpected_pairs = 7'
ABSENT = 'source = "scannet"\npaths = ["raw/scannet"]\nexpected_pairs = 36433'


def test_plan_says_what_is_there_what_is_missing_and_where_to_get_it(photos, tmp_path, capsys):
    code = run(["plan", str(write_recipe(tmp_path, PRESENT, ABSENT))])
    printed = capsys.readouterr().out
    rows = {
        line.split("│")[1].strip(): [c.strip() for c in line.split("│")[2:-1]]
        for line in printed.splitlines()
        if "│" in line
    }
    num_bytes = sum(path.stat().st_size for path in photos.iterdir())
    assert code == 3
    assert rows["images"] == ["present", "1", f"{num_bytes:,}", "7"]
    assert rows["scannet"] == ["missing", "0", "0", "36,433"]
    assert rows["all"][0] == "1 of 2 present"
    assert rows["all"][3] == "36,440"
    assert rows["of those present"][3] == "7"
    assert ORIGINS["scannet"].url in printed
    assert "a build stops there" in printed


def test_plan_is_done_when_all_is_there(photos, tmp_path):
    assert run(["plan", str(write_recipe(tmp_path, PRESENT))]) == 0


def test_states_of_a_source(photos, tmp_path):
    def stock(source, *paths):
        return take_stock(make_entry({"source": source, "paths": list(map(str, paths)), "expected_pairs": 5}, "r"))

    stocks = [
        stock("images", photos),
        stock("images", photos, tmp_path / "no"),
        stock("images", tmp_path / "no"),
        stock("scannet", photos),
    ]
    assert [s.state for s in stocks] == [State.PRESENT, State.PARTLY, State.MISSING, State.UNUSABLE]
    assert stocks[1].missing == (str(tmp_path / "no"),)
    assert "expected" in stocks[3].problem
    sums = totals(stocks)
    assert (sums.scenes, sums.expected_pairs, sums.expected_here) == (2, 20, 5)


def test_a_build_leaves_missing_optional_sources_out_and_says_so(photos, tmp_path, capsys):
    path = write_recipe(tmp_path, PRESENT, ABSENT + "\noptional = true")
    recipe = read_recipe(path)
    assert [s.name for s in recipe.sources] == ["images"]
    assert [s.source for s in recipe.skipped] == ["scannet"]
    assert run(["build", "--recipe", str(path), "--workers", "1"]) == 0
    assert f"left out: scannet: {tmp_path / 'raw/scannet'}: not there" in capsys.readouterr().out


def test_a_missing_source_that_is_not_optional_stops_the_build(photos, tmp_path, capsys):
    assert run(["build", "--recipe", str(write_recipe(tmp_path, PRESENT, ABSENT)), "--workers", "1"]) == 2
    assert "raw/scannet: no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "built").exists()


def test_nothing_but_missing_optional_sources_is_an_error(tmp_path, capsys):
    assert run(["build", "--recipe", str(write_recipe(tmp_path, ABSENT + "\noptional = true"))]) == 2
    assert "mimic-shard plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (PRESENT.replace("7", "-1"), "expected_pairs must be 0"),
        (PRESENT.replace('"images"', '"imagse"'), "unknown source 'imagse'"),
        (PRESENT + "\nkep = 1", "kep"),
    ],
)
def test_plan_refuses_a_wrong_recipe(photos, tmp_path, capsys, table, message):
    assert run(["plan", str(write_recipe(tmp_path, table))]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "parts", "printed"),
    [("mimic-1m", 1_316_202, 1_316_199), ("mimic-3m", 3_161_333, 3_163_333)],
)
def test_recipes_of_mimic_have_the_published_counts(name, parts, printed, capsys):
    path = SHARDS / name / "recipe.toml"
    tables = tomllib.loads(path.read_text())["sources"]
    assert sum(table["expected_pairs"] for table in tables) == parts
    assert f"{parts:,}" in path.read_text()
    assert f"{printed:,}" in path.read_text()
    assert run(["plan", str(path)]) in (0, 3)
    assert f"{parts:,}" in capsys.readouterr().out


def test_published_counts_per_source():
    """MIMIC (arXiv 2306.15128), section 3."""
    one, three = (
        {
            t["source"]: t["expected_pairs"]
            for t in tomllib.loads((SHARDS / name / "recipe.toml").read_text())["sources"]
        }
        for name in ("mimic-1m", "mimic-3m")
    )
    added = {name: three[name] - one.get(name, 0) for name in three if three[name] != one.get(name)}
    assert added == {"hm3d": 699_322, "gibson": 351_828, "streetview": 579_310, "co3d": 133_482, "arkitscenes": 81_189}
