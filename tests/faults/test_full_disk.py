"""Without room on the disk nothing half is seen, the message says so, and with room again the work goes on."""

import shutil
import subprocess
import sys

import pytest
from samples import make_data_set

from mimic_wds.storage.manifest import read_manifest

PULLED = """
import sys
from pathlib import Path
from mimic_wds.storage.index import index_tar
from mimic_wds.storage.places import open_place
from mimic_wds.storage.pulling import pull
from mimic_wds.storage.transfer import How
full = Path(sys.argv[2])
(full / "in-the-way").write_bytes(bytes(160_000))
try:
    pull(open_place(sys.argv[1]), full / "copy", How())
except OSError as error:
    print(" ".join(str(error).split()))
else:
    print("pulled")
print((full / "copy" / "manifest.json").exists(), [len(index_tar(p)[0]) for p in (full / "copy").glob("*.tar")])
(full / "in-the-way").unlink()
pull(open_place(sys.argv[1]), full / "copy", How())
source = {p.name: p.read_bytes() for p in Path(sys.argv[1]).iterdir() if p.is_file()}
print({p.name: p.read_bytes() for p in (full / "copy").iterdir() if p.is_file()} == source)
"""

CACHED = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from servers_for_transfer import WebServer
from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.remote import Remote
source, full = Path(sys.argv[1]), Path(sys.argv[2])
way = full / "in-the-way"
way.write_bytes(bytes(160_000))
remote = Remote(cache=str(full / "cache"), cache_bytes=10**7)
with WebServer(source) as server:
    try:
        with PairDataset(server.url, remote) as pairs:
            [pairs.read(i) for i in range(len(pairs))]
    except OSError as error:
        print(" ".join(str(error).split()))
    whole = {{p.stat().st_size for p in source.glob("*.tar")}}
    print(all(p.stat().st_size in whole for p in (full / "cache").rglob("*.tar")))
    way.unlink()
    with PairDataset(server.url, remote) as pairs, PairDataset(source) as here:
        print([pairs.read(i)[0] for i in range(len(here))] == [here.read(i)[0] for i in range(len(here))])
"""


def on_a_full_disk(tmp_path, program):
    """Lines that a program prints which gets a data set of 97 kB and an empty file system of 220 kB; or a skip."""
    make_data_set(tmp_path / "set", per_scene=(12,))
    assert 60_000 < sum(shard.bytes for shard in read_manifest(tmp_path / "set").shards) < 160_000
    (tmp_path / "full").mkdir()
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mounted = f"mount -t tmpfs -o size=220k tmpfs {tmp_path / 'full'} && exec "
    if shutil.which("unshare") is None or subprocess.run([*mount, mounted + "true"], check=False).returncode:
        pytest.skip("no file system may be mounted here")
    python = f'"{sys.executable}" -c "$0" "{tmp_path / "set"}" "{tmp_path / "full"}"'
    done = subprocess.run([*mount, mounted + python, program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_pull_without_room(tmp_path):
    message, seen, after = on_a_full_disk(tmp_path, PULLED)
    assert "[Errno 28]" in message
    assert "to come, but the disk has" in message  # it says so before it fetches anything
    assert seen == "False []"
    assert after == "True"


def test_a_cache_without_room(tmp_path):
    message, whole, after = on_a_full_disk(tmp_path, CACHED.format(path=sys.path))
    assert "the cache cannot be written: No space left on device" in message
    assert (whole, after) == ("True", "True")
