"""Disks that fill up, builds that are killed, input that fails: whole files or none, and one clear message."""

import errno
import os
import shutil
import subprocess
import sys

import pytest
from samples import make_sample, stage

from mimic_wds.storage.files import OutputError, atomic_write, is_temporary, remove_stale
from mimic_wds.storage.packing import pack
from mimic_wds.storage.writer import ShardWriter


def test_errors_of_reading_the_input_are_not_taken_for_a_full_disk(tmp_path):
    def write_and_fail():
        with ShardWriter(tmp_path / "x.tar") as writer:
            writer.add(make_sample())
            raise OSError(errno.EIO, os.strerror(errno.EIO), "clip.mp4")

    with pytest.raises(OSError, match="Input/output error") as caught:
        write_and_fail()
    assert caught.type is OSError
    assert caught.value.filename == "clip.mp4"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot write x in .*file: Not a directory"):
        write_once(tmp_path / "file" / "x")


def write_once(path):
    with atomic_write(path) as file:
        file.write(b"data")


FULL = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from samples import make_sample
from mimic_wds.storage.files import OutputError
from mimic_wds.storage.writer import ShardWriter
folder = Path(sys.argv[1])
(folder / "old").write_bytes(bytes(8192))
try:
    with ShardWriter(folder / "x.tar") as writer:
        for i in range(1000):
            writer.add(make_sample(i))
except OutputError as error:
    print(error)
print(sorted(p.name for p in folder.iterdir()), len((folder / "old").read_bytes()))
"""


def test_a_full_file_system_leaves_other_files_alone(tmp_path):
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mounted = f"mount -t tmpfs -o size=128k tmpfs {tmp_path} && exec "
    if shutil.which("unshare") is None or subprocess.run([*mount, mounted + "true"], check=False).returncode:
        pytest.skip("no file system may be mounted here")
    code = FULL.format(path=[os.path.dirname(__file__), os.getcwd()])
    program = f'"{sys.executable}" -c "$0" "{tmp_path}"'
    done = subprocess.run([*mount, mounted + program, code], capture_output=True, text=True, check=True)
    message, listed = done.stdout.splitlines()
    assert f"cannot write x.tar in {tmp_path}: No space left on device; free some space" in message
    assert listed == "['old'] 8192"


KILLED_AT = """
import os, shutil, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from mimic_wds.storage.packing import pack
staging, out = Path(sys.argv[1]), Path(sys.argv[2])
description = dict(criteria=dict(), versions=dict(), licences=dict())
real, calls = os.fsync, 0

def fsync(descriptor):
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)

os.fsync = fsync
for at in range(1, 100):
    (out / str(at)).mkdir(parents=True)
    copy = staging.with_name(f"staging{{at}}")
    shutil.copytree(staging, copy)
    child = os.fork()
    if child == 0:
        pack(copy, 3, out / str(at), "tiny", 30_000, description)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def test_packing_killed_at_any_sync_leaves_whole_files_and_repeats_to_the_same_bytes(tmp_path):
    for number in range(3):
        scene = f"clip{number}.mp4"
        stage(tmp_path / "staging", number, [make_sample(10 * number + i, scene=scene) for i in range(3)], scene)
    code = KILLED_AT.format(path=[os.path.dirname(__file__), os.getcwd()])
    subprocess.run([sys.executable, "-c", code, tmp_path / "staging", tmp_path / "out"], check=True)
    *killed, last = sorted((tmp_path / "out").iterdir(), key=lambda path: int(path.name))
    whole = contents(last)
    assert [name for name in whole if name.endswith(".tar")]
    assert len(killed) == 2 * len(whole)  # every file and its folder are synced
    for folder in killed:
        left = {name: data for name, data in contents(folder).items() if not is_temporary(name)}
        assert left.items() <= whole.items(), folder.name
        assert ("manifest.json" in left) is (folder is killed[-1])
        remove_stale(folder)
        pack(
            tmp_path / f"staging{folder.name}",
            3,
            folder,
            "tiny",
            30_000,
            {"criteria": {}, "versions": {}, "licences": {}},
        )
        assert contents(folder) == whole


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
