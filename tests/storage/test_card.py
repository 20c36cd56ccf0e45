"""The card, its figure, Croissant and sizes: what they say is what the manifest says."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from samples import make_data_set, make_image, make_image_set

from mimic_wds.cli.main import run
from mimic_wds.storage.card import card, croissant, figure, size_category, sizes, write_card
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.verify import verify

HOSTILE = 'a|b <script>alert("x")</script>\n---\n# no headline'


@pytest.fixture
def data_set(tmp_path):
    make_data_set(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_the_card_and_its_companions_are_written_beside_a_sound_data_set(data_set):
    assert run(["card", str(data_set), "--title", "Tiny clips"]) == 0
    assert {"README.md", "composition.svg", "croissant.json", "sizes.json"} <= {p.name for p in data_set.iterdir()}
    assert list(verify(data_set)) == []
    text = (data_set / "README.md").read_text()
    assert "# Tiny clips" in text
    assert "| video | 7 | 100.0% | 13 | 3 | CC0 |" in text


def test_its_files_are_told_to_machines(data_set, capsys):
    assert run(["card", str(data_set), "--json"]) == 0
    names = ["README.md", "composition.svg", "croissant.json", "sizes.json"]
    assert json.loads(capsys.readouterr().out) == [str(data_set / name) for name in names]


def test_it_can_be_written_again_but_not_over_another_readme(data_set):
    write_card(data_set)
    before = {path.name: path.read_bytes() for path in write_card(data_set)}
    assert before == {name: (data_set / name).read_bytes() for name in before}
    (data_set / "README.md").write_text("mine")
    with pytest.raises(ValueError, match="was written by someone else"):
        write_card(data_set)


def test_the_header_is_yaml_that_the_hub_reads(data_set):
    yaml = pytest.importorskip("yaml")
    text = card(read_manifest(data_set), 'Of "quotes": and colons')
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["pretty_name"] == 'Of "quotes": and colons'
    assert header["size_categories"] == ["n<1K"]
    assert header["configs"] == [{"config_name": "default", "data_files": "tiny-*.tar"}]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the packages that it uses
def test_croissant_is_valid_and_names_every_shard(data_set):
    mlcroissant = pytest.importorskip("mlcroissant")
    manifest = read_manifest(data_set)
    (data_set / "croissant.json").write_text(json.dumps(croissant(manifest, "https://example.org/tiny")))
    issues = mlcroissant.Dataset(str(data_set / "croissant.json")).metadata.ctx.issues
    assert not issues.errors
    files = {f["name"]: f for f in croissant(manifest, "")["distribution"] if f["@type"] == "cr:FileObject"}
    assert {name: file["sha256"] for name, file in files.items()} == {s.name: s.sha256 for s in manifest.shards}


def test_sizes_are_those_of_the_shards(data_set):
    manifest = read_manifest(data_set)
    write_card(data_set)
    assert json.loads((data_set / "sizes.json").read_text()) == sizes(manifest)
    assert sum(sizes(manifest).values()) == 7


def test_the_figure_has_a_bar_per_source_in_proportion(data_set):
    manifest = replace(read_manifest(data_set), kept={"video": 60, "images": 20, "co3d": 0})
    root = ElementTree.fromstring(figure(manifest))
    space = "{http://www.w3.org/2000/svg}"
    widths = [int(bar.get("width")) for bar in root.iter(f"{space}rect")]
    assert widths == [330, 110, 1]
    assert root.find(f"{space}title").text == "Samples per source of tiny"


def test_hostile_texts_stay_texts(data_set):
    manifest = replace(read_manifest(data_set), licences={"video": HOSTILE})
    text = card(manifest, HOSTILE.replace("\n", " "))
    (row,) = [line for line in text.splitlines() if line.startswith("| video")]
    assert "<script>" not in row
    assert row.count("|") - row.count("\\|") == 7
    assert text.count("\n---\n") == 1
    ElementTree.fromstring(figure(replace(manifest, kept={HOSTILE: 3})))


@pytest.mark.parametrize(
    ("samples", "word"), [(999, "n<1K"), (1000, "1K<n<10K"), (3_161_333, "1M<n<10M"), (10**8, "n>10M")]
)
def test_size_categories(samples, word):
    assert size_category(samples) == word


def test_single_images_have_a_card_too(tmp_path):
    make_image_set(tmp_path / "single", [make_image(n) for n in range(4)])
    write_card(tmp_path / "single")
    text = (tmp_path / "single" / "README.md").read_text()
    assert "4 images in" in text
    assert "'0.jpg', 'json'" in text
