"""Plans: the scenes of a recipe in a file, in order, the same every time."""

import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.plan import Plan, write_plan
from mimic_wds.curation.recipe import Recipe
from mimic_wds.pairs import Scene


@dataclass(frozen=True)
class Listing:
    """A source of the scenes that a file names, the number in a name being the scene's size."""

    name: ClassVar[str] = "video"
    path: str
    licence: str = ""

    def scenes(self):
        names = Path(self.path).read_text().splitlines()
        return [Scene(source=self.name, name=n, path=f"/in/{n}", num_bytes=int(n.split("-")[1])) for n in names]


@pytest.fixture
def listing(tmp_path):
    """Makes a source of these scenes; a second one of the same file replaces them."""

    def make(*names, file="list.txt"):
        path = tmp_path / file
        path.write_text("\n".join(names))
        return Listing(str(path))

    return make


def recipe(*sources, **changes):
    values = {"name": "x", "out": None, "preset": "default", "criteria": Criteria(), "sources": sources}
    return Recipe(**{**values, **changes})


def test_scenes_come_back_in_order_and_the_largest_first_when_asked(tmp_path, listing):
    names = ("a-7", 'b "quoted"]-30', "ü,[1]-30", "d-9")
    with write_plan(tmp_path, recipe(listing(*names), listing("e-100", file="other.txt"))) as plan:
        assert [plan.scene(n)[1].name for n in range(len(plan))] == [*names, "e-100"]
        assert [plan.scene(n)[0] for n in range(len(plan))] == [0, 0, 0, 0, 1]
        assert plan.scene(3)[1] == Scene(source="video", name="d-9", path="/in/d-9", num_bytes=9)
        assert plan.largest_first(np.arange(5)).tolist() == [4, 1, 2, 3, 0]
        assert plan.largest_first(np.array([0, 3])).tolist() == [3, 0]


def test_a_plan_that_is_there_must_be_the_same(tmp_path, listing):
    one = recipe(listing("a-1", "b-2"))
    with write_plan(tmp_path, one) as plan, write_plan(tmp_path, one) as again:
        assert again.digest() == plan.digest()
    with pytest.raises(ValueError, match="has other scenes"):
        write_plan(tmp_path, recipe(listing("a-1", "b-3")))  # the second one grew ...
    with pytest.raises(ValueError, match="another recipe"):
        write_plan(tmp_path, recipe(listing("a-1", "b-2"), preset="paper"))


def test_a_plan_made_with_other_versions_is_not_resumed(tmp_path, listing):
    one = recipe(listing("a-1"))
    write_plan(tmp_path, one).__exit__()
    path = tmp_path / "plan.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"opencv": "', b'"opencv": "1.', 1))
    with pytest.raises(ValueError, match=r"was made with .*opencv 1\..*, this is"):
        write_plan(tmp_path, one)


def test_a_scene_in_two_sources_of_a_recipe_is_named(tmp_path, listing):
    with pytest.raises(ValueError, match=r"two \[\[sources\]\] of the recipe hold the video scene 'b-2'"):
        write_plan(tmp_path, recipe(listing("a-1", "b-2"), listing("b-2", file="other.txt")))
    assert not (tmp_path / "plan.jsonl").exists()


@pytest.mark.parametrize("damage", [b"", b"{}\n[0,\n", b"not json\n"])
def test_a_damaged_plan_says_so(tmp_path, damage):
    (tmp_path / "plan.jsonl").write_bytes(damage)
    with pytest.raises(ValueError, match="is damaged; delete"):
        Plan(tmp_path)
    with pytest.raises(ValueError, match="no build was started here"):
        Plan(tmp_path / "elsewhere")


def test_an_open_plan_holds_a_few_bytes_per_scene(tmp_path, listing):
    count = 100_000
    write_plan(tmp_path, recipe(listing(*(f"some/folder/of/clips/{n}-{n}" for n in range(count))))).__exit__()
    tracemalloc.start()
    try:
        with Plan(tmp_path) as plan:
            held = tracemalloc.get_traced_memory()[0]
            assert plan.scene(count - 1)[1].num_bytes == count - 1
    finally:
        tracemalloc.stop()
    assert held < 40 * count
