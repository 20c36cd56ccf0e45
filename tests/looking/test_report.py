"""The report on a data set: its numbers against those that the shards' own files give, whatever it is like."""

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from html import unescape

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import CRITERIA, make_data_set, make_image, make_image_set, make_sample
from servers_for_transfer import ACCESS, BUCKET, SECRET, s3_client, s3_server

from mimic_wds.cli.main import run
from mimic_wds.looking.report import ENOUGH, KINDS, NEAR_BLACK, Looked, draw_numbers, gallery, outliers, whiskers
from mimic_wds.looking.report_page import report_page
from mimic_wds.pairs import Counts, Scene
from mimic_wds.storage.browse import Browser, open_browser
from mimic_wds.storage.folder_place import FolderPlace
from mimic_wds.storage.packing import pack
from mimic_wds.storage.staging import SceneStage

HOSTILE = '<img src=x onerror="document.title=1">"\'&amp;</script><script>alert(1)</script>'
DROPPED = {"video": {"too_few_matches": 7, "overlap_too_small": 3}, "scan": {"overlap_too_large": 4}}


def noise(number, low=0, high=256, blur=0):
    """A JPEG of noise between grey levels low and high, maybe blurred."""
    cells = np.random.default_rng(1000 + number).integers(low, high, (16, 16, 3), dtype=np.uint8)
    picture = cv2.resize(cells, (64, 64))
    picture = cv2.GaussianBlur(picture, (0, 0), blur) if blur else picture
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def stage(staging, number, source, scene, samples, error=""):
    """Stage a scene of a source with these samples."""
    staging.mkdir(exist_ok=True)
    with SceneStage(staging, number) as open_stage:
        for sample in samples:
            open_stage.add(sample)
        counts = Counts(kept=len(samples), dropped={} if error else DROPPED[source], views=len(samples) + 3)
        open_stage.finish(Scene(source=source, name=scene, path=f"/in/{scene}"), counts, error)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """29 pairs: two scenes of "video", one of "scan" with a hostile name and a pair odd in each way; one failed."""
    folder = tmp_path_factory.mktemp("report") / "tiny"
    folder.mkdir()
    staging = folder.parent / "staging"
    long = [make_sample(n, scene="long.mp4", overlap=0.515 + n / 100) for n in range(12)]
    again = cv2.imdecode(np.frombuffer(long[2].image0_jpg, np.uint8), cv2.IMREAD_COLOR)
    same = {
        "image0_jpg": cv2.imencode(".jpg", again, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes(),
        "image1_jpg": long[2].image1_jpg,
    }
    short = [make_sample(n, scene="short.mp4", overlap=0.705) for n in range(20, 22)]
    short.append(make_sample(22, scene="short.mp4", overlap=0.705, **same))
    odd = {3: noise(3, 0, 9), 5: noise(5, 0, 90), 7: noise(7, 215, 256), 9: noise(9, blur=6)}
    scan = [
        make_sample(n, "scan", HOSTILE, overlap=0.605, image0_jpg=odd.get(n, noise(n)), image1_jpg=noise(50 + n))
        for n in range(14)
    ]
    stage(staging, 0, "video", "long.mp4", long)
    stage(staging, 1, "video", "short.mp4", short)
    stage(staging, 2, "scan", HOSTILE, scan)
    stage(staging, 3, "video", "broken.mp4", [], "moov atom not found")
    description = {"criteria": CRITERIA, "versions": {}, "licences": {"video": "CC0"}}
    pack(staging, 4, folder, "tiny", 90_000, description)
    return folder


@pytest.fixture(scope="module")
def written(folder):
    """(key, KEY.json, image 0, image 1) of every sample, read with tarfile alone."""
    found = []
    for shard in sorted(folder.glob("*.tar")):
        members = {}
        with tarfile.open(shard) as file:
            for member in file:
                key, name = member.name.split(".", 1)
                members.setdefault(key, {})[name] = file.extractfile(member).read()
        for key, parts in members.items():
            jpegs = [data for name, data in sorted(parts.items()) if name.endswith("jpg")]
            found.append((key, json.loads(parts["json"]), *jpegs))
    assert len(found) == 29
    return found


def make(where, samples=10**6, num=3, seed=0):
    """The report on a data set."""
    browser = where if isinstance(where, Browser) else open_browser(where)
    return report_page(browser, samples=samples, num=num, seed=seed, note=lambda: None)


@pytest.fixture(scope="module")
def report(folder):
    return make(folder)


def section(page, name):
    """What stands below a heading; None where the page has no such section."""
    found = re.search(rf'<section aria-labelledby="{name}">(.*?)</section>', page, re.DOTALL)
    return found and found[1]


def charts(part):
    """Title -> chart."""
    found = [ET.fromstring(svg) for svg in re.findall(r'<svg [^>]*class="chart">.*?</svg>', part, re.DOTALL)]
    return {chart.find("text").text: chart for chart in found}


def bar_numbers(chart):
    """Name -> what stands beside its bar."""
    texts = list(chart.iter("text"))[1:]
    return {name[0].text: number.text for name, number in zip(texts[::2], texts[1::2], strict=True)}


def bins(chart):
    """[(low, high, count)] of a histogram, from what its bars say."""
    told = [node[0].text for node in chart.iter("rect") if node.get("class") == "bar"]
    found = [re.fullmatch(r"(\S+) to (\S+): (\S+)", text.replace(",", "")).groups() for text in told]
    return [tuple(map(float, numbers)) for numbers in found]


def tables(part):
    """Rows of cells of each table."""
    found = [ET.fromstring(text) for text in re.findall(r"<table>.*?</table>", part, re.DOTALL)]
    return [[["".join(cell.itertext()) for cell in row] for row in table.find("tbody")] for table in found]


def keys_under(part, title):
    """Keys of the pictures below a sub-heading of the gallery."""
    below = re.search(rf"<h3>{re.escape(title)}</h3>(.*?)(<h3>|$)", part, re.DOTALL)[1]
    return [unescape(key) for key in re.findall(r'<span class="mono">(.*?)</span>', below)]


def test_composition_is_what_the_samples_say(report, written):
    held = Counter(facts["source"] for _, facts, *_ in written)
    assert held == {"video": 15, "scan": 14}
    part = section(report, "composition")
    assert bar_numbers(charts(part)["Samples by source (pairs)"]) == {"video": "15 (51.7%)", "scan": "14 (48.3%)"}
    (rows,) = tables(part)
    assert rows == [
        ["video", "15", "51.7%", "3", "35", "20", "42.9%", "CC0"],
        ["scan", "14", "48.3%", "1", "18", "4", "77.8%", "not stated"],
    ]


def test_kept_and_dropped_by_reason_and_source(report):
    part = section(report, "fates")
    drawn = {title: bar_numbers(chart) for title, chart in charts(part).items()}
    assert drawn["Candidates of video (pairs)"] == {
        "kept": "15 (42.9%)",
        "too_few_matches": "14 (40.0%)",
        "overlap_too_small": "6 (17.1%)",
    }
    assert drawn["Candidates of scan (pairs)"] == {"kept": "14 (77.8%)", "overlap_too_large": "4 (22.2%)"}
    total = {name: int(text.split()[0]) for name, text in drawn["Candidates of all sources (pairs)"].items()}
    assert total == {"kept": 29, "too_few_matches": 14, "overlap_too_small": 6, "overlap_too_large": 4}
    assert sum(int(row[2]) for row in tables(part)[0]) == 53


def test_overlaps_and_inliers_are_those_of_the_samples(report, written):
    part = section(report, "overlap")
    overlap = bins(charts(part)["Overlap"])
    values = [facts["overlap"] for _, facts, *_ in written]
    assert sum(count for *_, count in overlap) == 29
    for low, high, count in overlap:
        assert count == sum(low <= value < high for value in values)
    assert [round(low, 2) for low, *_ in overlap] == [round(n / 20, 2) for n in range(20)]
    assert "the criteria of the build are marked: 0.5 to 0.8" in part
    inliers = [facts["num_inliers"] for _, facts, *_ in written]
    for low, high, count in bins(charts(part)["Inliers"]):
        assert count == sum(low <= value < high for value in inliers)
    assert f"least {min(inliers)}, median {np.median(inliers):g}, most {max(inliers)}." in part


def test_scenes_and_pairs_of_each(report):
    part = section(report, "scenes")
    assert sum(count for *_, count in bins(charts(part)["Pairs per scene"])) == 3
    largest, failed = tables(part)
    assert largest == [["scan", HOSTILE, "14"], ["video", "long.mp4", "12"], ["video", "short.mp4", "3"]]
    assert failed == [["video/broken.mp4", "moov atom not found"]]
    assert "3 scenes with pairs; pairs per scene: least 3, median 12, most 14." in part


def test_odd_views_are_found_by_source_the_worst_first(report, written):
    part = section(report, "light")
    by_source, odd = tables(part)
    keys = [key for key, facts, *_ in written if facts["source"] == "scan"]
    assert [(row[0], row[1], row[2]) for row in odd] == [
        (keys[3], "scan", "all but black"),
        (keys[5], "scan", "dark"),
        (keys[7], "scan", "bright"),
        (keys[9], "scan", "blurred or bare"),
    ]
    greys = {}
    for _, facts, *jpegs in written:
        for jpeg in jpegs:  # ITU-R BT.601, of the colours
            bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).reshape(-1, 3).mean(axis=0)
            greys.setdefault(facts["source"], []).append(float(bgr @ [0.114, 0.587, 0.299]))
    for row in by_source:
        assert float(row[2]) == pytest.approx(np.median(greys[row[0]]), abs=1)
    assert [row[:2] + row[4:] for row in by_source] == [
        ["scan", "14", "1", "1", "1", "1"],
        ["video", "15", "0", "0", "0", "0"],
    ]
    seen = [value for values in greys.values() for value in values]
    drawn = bins(charts(part)["Brightness"])
    assert sum(count for *_, count in drawn) == len(seen) == 58
    assert [count for _, high, count in drawn if high <= 8] == [sum(value < 8 for value in seen)] == [1]
    assert sum(count for *_, count in bins(charts(part)["Sharpness"])) == 58


def test_near_duplicates_are_named_and_drawn(report, written):
    part = section(report, "duplicates")
    keys = [key for key, *_ in written]
    assert tables(part) == [[[keys[14], keys[2]]]]
    assert "1 of 29 drawn look nearly like an earlier one." in part
    assert re.findall(r'alt="(view \d of [^"]*)"', part) == [
        f"view {n} of {key}" for key in (keys[14], keys[2]) for n in (0, 1)
    ]


def test_shards_are_listed_with_the_hashes_of_their_files(report, folder):
    (rows,) = tables(section(report, "shards"))
    files = sorted(folder.glob("*.tar"))
    assert len(files) > 1
    assert [(row[0], row[3].replace(",", ""), row[4]) for row in rows] == [
        (file.name, str(file.stat().st_size), hashlib.sha256(file.read_bytes()).hexdigest()) for file in files
    ]
    assert sum(int(row[2]) for row in rows) == 29


def test_the_gallery_has_what_its_titles_say(report, written):
    part = section(report, "gallery")
    source, overlap = ({key: facts[name] for key, facts, *_ in written} for name in ("source", "overlap"))
    lowest, highest = keys_under(part, "Lowest overlap"), keys_under(part, "Highest overlap")
    assert [overlap[key] for key in lowest] == sorted(overlap.values())[:3]
    assert [overlap[key] for key in highest] == sorted(overlap.values())[:-4:-1]
    for name in ("scan", "video"):
        assert [source[key] for key in keys_under(part, f"Source {name}")] == [name] * 3
    assert len(set(keys_under(part, "Drawn at random"))) == 3
    assert part.count("data-blends=") == part.count("<article") == 15
    told = re.findall(r'<span class="mono">(.*?)</span><br><span class="quiet">overlap (\S+) ', part)
    assert all(float(number) == pytest.approx(overlap[unescape(key)], abs=5e-4) for key, number in told)


def references(page):
    """Whatever a browser would fetch or follow, and handlers of events."""
    tags = re.findall(r"<[a-z][^>]*>", re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL))
    return [value for tag in tags for value in re.findall(r'\s(?:src|href|srcset|action|on\w+)="([^"]*)"', tag)]


def assert_sound(page):
    """Nothing is fetched, contents lead somewhere, names are unique, one script."""
    found = references(page)
    assert [value for value in found if not value.startswith(("data:image/", "#"))] == []
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(set(ids)) == len(ids)
    linked = [value[1:] for value in found if value.startswith("#")]
    assert linked == re.findall(r'<h2 id="([^"]*)">', page), "every section is in the contents"
    assert set(re.findall(r'\s(?:data-blends|for|aria-labelledby)="([^"]*)"', page)) <= set(ids)
    assert page.count("<script>") == 1
    assert not re.search(r"url\(|@import", re.search("<style>(.*?)</style>", page, re.DOTALL)[1])
    assert page.count("<main>") == page.count("</html>") == 1


def test_the_page_needs_nothing_else_and_hostile_names_are_text(report):
    assert_sound(report)
    assert "<img src=x" not in report
    assert "alert(1)</script>" not in report
    assert unescape(report).count(HOSTILE) >= 8


def test_the_same_seed_draws_the_same_page(folder, report):
    few = make(folder, samples=10, seed=1)
    assert few == make(folder, samples=10, seed=1)
    assert few != make(folder, samples=10, seed=2)
    assert "of 10 pairs drawn at random (seed 1)" in few
    assert sum(count for *_, count in bins(charts(section(few, "overlap"))["Inliers"])) == 10
    assert sum(count for *_, count in bins(charts(section(few, "overlap"))["Overlap"])) == 29, "from the manifest"
    assert "Everything below is of all of them." in report


class Counting:
    """A folder that counts what is read of its shards."""

    def __init__(self, folder):
        self._place, self.parts = FolderPlace(folder), []

    def __getattr__(self, name):
        return getattr(self._place, name)

    def read(self, name):
        assert not name.endswith(".tar"), "a whole shard"
        return self._place.read(name)

    def read_range(self, name, start, length):
        self.parts.append((name, start, length))
        return self._place.read_range(name, start, length)


def test_only_the_samples_drawn_are_read(folder):
    place = Counting(folder)
    make(Browser(place), samples=4, num=1)
    of_shards = {part for part in place.parts if part[0].endswith(".tar")}
    assert len(of_shards) == 4
    assert sum(length for *_, length in of_shards) < 0.25 * sum(file.stat().st_size for file in folder.glob("*.tar"))


def test_single_images_have_a_report_without_pairs(tmp_path):
    images = [make_image(number, classes=("cat", HOSTILE)) for number in range(9)]
    make_image_set(tmp_path / "single", images, classes=("cat", HOSTILE))
    page = make(tmp_path / "single")
    assert_sound(page)
    assert section(page, "overlap") is None
    assert "Overlap" not in page
    assert bar_numbers(charts(section(page, "composition"))["Samples by source (images)"]) == {
        "image-folder": "9 (100.0%)"
    }
    assert "This is an import" in section(page, "scenes")
    assert sum(count for *_, count in bins(charts(section(page, "light"))["Brightness"])) == 9
    assert "data-blends" not in section(page, "gallery")
    assert len(keys_under(section(page, "gallery"), "Drawn at random")) == 3


@pytest.mark.parametrize("count", [0, 1])
def test_a_data_set_of_none_or_one(tmp_path, count):
    make_data_set(tmp_path / "tiny", (count,))
    page = make(tmp_path / "tiny")
    assert_sound(page)
    assert ("There are no samples." in section(page, "composition")) == (count == 0)
    assert page.count("<article") == 3 * count  # at random, lowest, highest
    assert ("1 pair in 1 shard," if count else "0 pairs in 0 shards,") in page
    assert "None among those drawn." in section(page, "duplicates")
    assert len(charts(section(page, "light"))) == 2 * count


def test_a_data_set_without_lines_of_scenes_says_so(tmp_path):
    make_data_set(tmp_path / "tiny")
    (tmp_path / "tiny" / "scenes.jsonl").unlink()
    page = make(tmp_path / "tiny")
    assert_sound(page)
    assert "scenes.jsonl is missing" in section(page, "scenes")
    assert not charts(section(page, "scenes"))


def test_pairs_whose_overlap_is_not_known(tmp_path):
    nothing = {"H_0to1": np.zeros((3, 3)), "corr_0to1": np.full(16, -1, np.int16)}
    unknown = {"overlap": -1.0, "num_inliers": -1, **nothing}
    folder = tmp_path / "tiny"
    folder.mkdir()
    stage(tmp_path / "staging", 0, "video", "a", [make_sample(n, scene="a", **unknown) for n in range(4)])
    pack(tmp_path / "staging", 1, folder, "tiny", 10**6, {"criteria": {}, "versions": {}, "licences": {}})
    page = make(folder)
    assert_sound(page)
    part = section(page, "overlap")
    assert not charts(part)
    assert "overlap of these pairs is not known" in part
    assert "Lowest overlap" not in page
    assert "data-blends" not in section(page, "gallery")
    assert "overlap not known" in section(page, "gallery")


def test_samples_that_do_not_decode_are_counted_and_left_out(tmp_path, capsys):
    make_data_set(tmp_path / "tiny", (5,), max_shard_bytes=10**6)
    (shard,) = (tmp_path / "tiny").glob("*.tar")
    with tarfile.open(shard) as file:
        start = next(member.offset_data for member in file if member.name.endswith("jpg"))
    with shard.open("r+b") as file:
        file.seek(start)
        file.write(b"\0" * 200)
    assert run(["report", str(tmp_path / "tiny"), "--out", str(tmp_path / "a.html")]) == 3
    told = capsys.readouterr()
    assert "4 of 5 pairs read" in told.out
    assert "1 of the 5 pairs drawn could not be read" in told.err.replace("\n", " ")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert_sound(page)
    assert "1 of those drawn could not be read: run mimic-shard verify." in page
    assert sum(count for *_, count in bins(charts(section(page, "light"))["Brightness"])) == 8


def test_a_bucket_gives_the_same_page_as_a_folder(folder, report, monkeypatch):
    for name, value in {"ACCESS_KEY_ID": ACCESS, "SECRET_ACCESS_KEY": SECRET, "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with s3_server() as endpoint:
        client = s3_client(endpoint)
        client.create_bucket(Bucket=BUCKET)
        for file in folder.iterdir():
            client.put_object(Bucket=BUCKET, Key=f"tiny/{file.name}", Body=file.read_bytes())
        browser = open_browser(f"s3://{BUCKET}/tiny", endpoint=endpoint)
        page = make(browser)
    assert SECRET not in page
    assert page.replace(browser.place.url, open_browser(folder).place.url) == report


def test_the_page_is_written_whole_or_not_at_all(folder, tmp_path):
    out = tmp_path / "report.html"
    assert run(["report", str(folder), "--out", str(out), "--num", "1"]) == 0
    first = out.read_text(encoding="utf-8")
    assert_sound(first)
    args = ["report", str(folder), "--out", str(out), "--num", "2"]
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"
    code = f"{limit} import sys; from mimic_wds.cli.main import run; sys.exit(run({args!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cannot write report.html" in done.stderr
    assert out.read_text(encoding="utf-8") == first
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert run(args) == 0
    assert out.read_text(encoding="utf-8") != first, "replaced by the new one"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("out", ["", "page.txt", "manifest.json", "missing/report.html", "dir.html"])
def test_a_place_that_no_page_can_have_is_refused_first(tmp_path, capsys, out):
    (tmp_path / "dir.html").mkdir()
    assert run(["report", str(tmp_path / "no-such-data-set"), "--out", str(tmp_path / out)]) == 2
    assert re.search("ending in .html|make it first", capsys.readouterr().err.replace("\n", " "))


@pytest.mark.parametrize("args", [["--samples", "0"], ["--num", "-1"], ["--seed", "-1"]])
def test_numbers_out_of_range_are_refused(folder, tmp_path, args):
    assert run(["report", str(folder), "--out", str(tmp_path / "a.html"), *args]) == 2
    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, 300), st.integers(1, 400), st.integers(0, 2**40))
def test_draws_are_different_samples_of_all(total, wanted, seed):
    numbers = draw_numbers(total, wanted, seed)
    assert len(numbers) == min(total, wanted)
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(range(total))
    assert numbers == draw_numbers(total, wanted, seed)


def look(number, bright=120.0, sharp=500.0, source="a", overlap=0.6):
    return Looked(
        number=number,
        key=str(number),
        source=source,
        overlap=overlap,
        inliers=20,
        brightness=(bright, bright),
        sharpness=(sharp, sharp),
        hashes=(0, 0),
    )


@given(st.lists(st.floats(0, 255), min_size=1, max_size=40))
def test_black_is_black_in_any_source_and_others_need_company(bright):
    found = outliers([look(number, value) for number, value in enumerate(bright)])
    assert [odd.look.number for odd in found if odd.kind == KINDS[0]] == [
        number for number, value in enumerate(bright) if value < NEAR_BLACK
    ]
    if len(bright) < ENOUGH:
        assert {odd.kind for odd in found} <= {KINDS[0]}
    low, high = whiskers([value for value in bright for _ in range(2)])
    outside = {n for n, value in enumerate(bright) if not low <= value <= high}
    if len(bright) >= ENOUGH:
        assert {odd.look.number for odd in found} >= outside, "blur aside"


def test_sources_are_compared_with_themselves_only():
    dark = [look(number, 30.0 + number / 10, source="night") for number in range(20)]
    light = [look(20 + number, 200.0 + number / 10, source="snow") for number in range(20)]
    mixed = [*light, look(40, 30.0, source="snow"), *dark]
    assert [odd.look.number for odd in outliers(mixed)] == [40]


@given(st.lists(st.floats(-1, 1), max_size=20), st.integers(0, 6), st.integers(0, 99))
def test_the_gallery_never_shows_more_than_there_is(overlaps, num, seed):
    looks = [look(number, overlap=value) for number, value in enumerate(overlaps)]
    shown = gallery(looks, num, seed)
    for members in shown.values():
        assert len({each.number for each in members}) == len(members) <= num
    known = sorted(value for value in overlaps if value >= 0)
    if known:
        assert [each.overlap for each in shown["Lowest overlap"]] == known[:num]
        assert [each.overlap for each in shown["Highest overlap"]] == known[::-1][:num]
    else:
        assert "Lowest overlap" not in shown
