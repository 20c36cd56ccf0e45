"""An S3 server, a data set, its second generation."""

import os
import shutil
from dataclasses import replace

import pytest
from samples import make_data_set
from servers_for_transfer import ACCESS, BUCKET, SECRET, WebServer, s3_client, s3_server

from mimic_wds.storage.manifest import write_manifest


@pytest.fixture(scope="session")
def endpoint():
    with s3_server() as endpoint:
        s3_client(endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint


@pytest.fixture
def s3(endpoint, monkeypatch, tmp_path):
    """A client of the S3 server; our own code finds it through the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return s3_client(endpoint)


@pytest.fixture
def prefix(tmp_path):
    """A folder of the bucket that only this test uses."""
    return tmp_path.name


@pytest.fixture(scope="session")
def data_sets(tmp_path_factory):
    """Folders of generation 0 (2 shards) and 1 (2 more) of the same data set; tests use copies."""
    return two_generations(tmp_path_factory.mktemp("sets"), [(4, 2), (4, 2, 4)])


@pytest.fixture(scope="session")
def longer_sets(tmp_path_factory):
    """The same with 6 shards and 6 more: long enough to be killed at many moments."""
    return two_generations(tmp_path_factory.mktemp("longer"), [(6, 12), (6, 12, 18)])


def two_generations(base, scenes):
    """A data set and its next generation, which has all its files and some more."""
    first, second = (make_data_set(base / f"g{n}", per_scene=counts) for n, counts in enumerate(scenes))
    old = len(first.shards)
    assert second.shards[:old] == first.shards
    shards = [replace(shard, generation=int(number >= old)) for number, shard in enumerate(second.shards)]
    write_manifest(base / "g1", replace(second, generation=1, shards=shards, id=first.id))
    lines = (base / "g1" / "scenes.jsonl").read_text().splitlines(keepends=True)
    (base / "g1" / "scenes.jsonl").write_text("".join(lines[:-1]))
    (base / "g1" / "scenes-000001.jsonl").write_text(lines[-1])
    for number, folder in enumerate((base / "g0", base / "g1")):
        (folder / "README.md").write_text(f"generation {number}\n")
        (folder / "recipe.toml").write_text("stays here")
    return base / "g0", base / "g1"


@pytest.fixture
def data_set(data_sets, tmp_path):
    return shutil.copytree(data_sets[0], tmp_path / "set")


@pytest.fixture
def second(data_sets, tmp_path):
    """The next generation of `data_set`."""
    return shutil.copytree(data_sets[1], tmp_path / "second")


@pytest.fixture
def web(data_set):
    with WebServer(data_set) as server:
        yield server
