"""Tars of others through webdataset's own pipeline, with its limits."""

import http.server
import io
import shlex
import shutil
import tarfile
import threading
from functools import partial

import pytest
import torch
from samples import make_data_set

from mimic_wds.loading.faults import FaultCounts, FaultPolicy
from mimic_wds.loading.foreign import cache_name, expand, read_foreign
from mimic_wds.storage.layout import MEMBERS
from mimic_wds.storage.sample import decode

read = partial(read_foreign, decode=decode, members=MEMBERS["pairs"])


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Four tars of 12 samples in all, named part-0.tar to part-3.tar, and nothing beside them."""
    place = tmp_path_factory.mktemp("foreign")
    make_data_set(place / "set", per_scene=(3, 3, 3, 3), max_shard_bytes=30_000)
    found = sorted((place / "set").glob("*.tar"))
    assert len(found) == 4
    (place / "tars").mkdir()
    return [shutil.copy(path, place / "tars" / f"part-{number}.tar") for number, path in enumerate(found)]


def keys(*args, **options):
    return [sample.key for sample in read(*args, **options)]


@pytest.fixture(scope="module")
def all_keys(tars):
    found = keys([str(tar) for tar in tars])
    assert len(set(found)) == 12
    return found


def test_braces_double_colons_and_commands_name_tars(tars, all_keys):
    folder = tars[0].parent
    assert keys(f"{folder}/part-{{0..3}}.tar") == all_keys
    assert keys("::".join(map(str, tars))) == all_keys
    assert keys([f"pipe:cat {shlex.quote(str(tar))}" for tar in tars]) == all_keys
    assert expand("a{0..2}.tar::b.tar") == ["a0.tar", "a1.tar", "a2.tar", "b.tar"]
    with pytest.raises(ValueError, match="no tars are named"):
        expand("")


def test_ranks_share_whole_tars(tars, all_keys):
    urls = [str(tar) for tar in tars]
    shares = [keys(urls, rank=rank, world_size=3) for rank in range(3)]
    assert sorted(key for share in shares for key in share) == sorted(all_keys)
    assert sorted(map(len, shares)) == [3, 3, 6]
    with pytest.raises(ValueError, match="4 tars cannot be shared by 5 processes"):
        keys(urls, world_size=5)


def test_a_seed_is_an_order(tars, all_keys):
    urls = [str(tar) for tar in tars]
    orders = [keys(urls, shuffle=8, seed=seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == sorted(all_keys) != order for order in orders)


class Workers(torch.utils.data.IterableDataset):
    """As a DataLoader takes it."""

    def __init__(self, urls):
        self.urls = urls

    def __iter__(self):
        return iter(keys(self.urls))


def test_workers_of_a_loader_share_the_tars(tars, all_keys):
    loader = torch.utils.data.DataLoader(Workers([str(tar) for tar in tars]), batch_size=None, num_workers=2)
    assert sorted(loader) == sorted(all_keys)


@pytest.fixture
def server(tars):
    """A web server of the tars; yields its address and the paths that were asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    handler = partial(Handler, directory=tars[0].parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


@pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset fetches with curl")
def test_the_cache_is_webdatasets_but_equal_file_names_do_not_meet_in_it(server, tmp_path, all_keys):
    address, asked = server
    urls = f"{address}/part-{{0..3}}.tar"
    assert keys(urls, cache_dir=tmp_path / "cache") == all_keys
    number = len(asked)
    assert keys(urls, cache_dir=tmp_path / "cache") == all_keys
    assert len(asked) == number
    assert len(list((tmp_path / "cache").iterdir())) == 4
    assert cache_name("http://a/part-0.tar") != cache_name("http://b/part-0.tar")


def test_bad_samples_are_counted_up_to_the_budget(tars):
    urls, faults = [str(tar) for tar in tars], FaultCounts()
    wants = partial(read_foreign, urls, lambda key, _: key, faults=faults)
    assert list(wants(members=["0.depth.png"], policy=FaultPolicy(count=12))) == []
    assert faults.counts == {"no_0_depth_png": 12}
    with pytest.raises(RuntimeError, match=r"part-0\.tar: more than 10 samples|more than 10 samples cannot be used"):
        list(read_foreign(urls, lambda key, _: key, ["x"]))
    with pytest.raises(RuntimeError, match="more than 0 samples"):
        list(read_foreign(urls, lambda key, _: key, ["x"], policy=FaultPolicy(action="raise")))
    number = iter(range(12))

    def every_other(key, members):
        if next(number) % 2:
            raise ValueError("bad")
        return key

    counted = FaultCounts()
    assert len(list(read_foreign(urls, every_other, ["json"], faults=counted))) == 6
    assert counted.counts == {"does_not_decode": 6}


def test_a_tar_that_cannot_be_read_is_named(tars, tmp_path):
    torn = tmp_path / "torn.tar"
    torn.write_bytes(tars[0].read_bytes()[:1500])
    with pytest.raises(ValueError, match=r"torn\.tar"):
        keys(str(torn))
    with pytest.raises(ValueError, match=r"nowhere\.tar"):
        keys(str(tmp_path / "nowhere.tar"))


def test_the_limit_that_is_told_a_tar_cut_between_samples_passes(tars, tmp_path):
    cut = tmp_path / "cut.tar"
    with tarfile.open(tars[0]) as tar:
        second = tar.getmembers()[4].offset
    cut.write_bytes(tars[0].read_bytes()[:second])
    assert keys(str(cut)) == keys(str(tars[0]))[:1]


def test_nothing_is_unpickled(tmp_path):
    """A member that is a program stays bytes."""
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in (("a.pyd", b"cos\nsystem\n(S'touch evil'\ntR."), ("a.json", b"{}")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert list(read_foreign(str(path), lambda _, members: dict(members), ["json"])) == [{"json": b"{}"}]
    assert not (tmp_path / "evil").exists()
