"""Push and pull killed with SIGKILL at random moments: what is visible is a whole data set, a rerun completes it."""

import hashlib
import random
import shutil
import sys
from itertools import islice

import processes
import pytest
from servers_for_transfer import BUCKET, environment, files, objects

from mimic_wds.storage.manifest import decode_manifest

#: How often each verb is killed on its first transfer, and over an earlier generation: 20 times in all. More turns
#: than TURNS are not needed for that.
KILLS, TURNS = 10, 40


def run(env, verb, *args, kill_after=None):
    """Run a verb; if asked for, kill it so many seconds after it began. Was it killed?"""
    command = [sys.executable, "-m", "mimic_wds.cli.main", verb, *args, "--workers", "2"]
    if kill_after is not None:
        return processes.killed_after(command, kill_after, env=env)
    done = processes.run(command, env=env)
    assert done.returncode == 0, done.stderr
    run.seconds = done.seconds
    return False


def whole(found):
    """The manifest among these files, every shard of which is there with its bytes; None if there is no manifest."""
    if "manifest.json" not in found:
        return None
    manifest = decode_manifest(found["manifest.json"], "found")
    for shard in manifest.shards:
        assert hashlib.sha256(found[shard.name]).hexdigest() == shard.sha256
        assert shard.name.replace(".tar", ".idx") in found
    return manifest.generation


def published(folder):
    return {name: data for name, data in files(folder).items() if name != "recipe.toml"}


def moments(seconds):
    """Numbered random moments over the whole of an undisturbed run."""
    rng = random.Random(7)
    return enumerate(rng.uniform(0, seconds) for _ in range(TURNS))


@pytest.mark.slow
@pytest.mark.parametrize("before", [None, 0])
def test_push(longer_sets, endpoint, s3, prefix, tmp_path, before):
    """A first push, and one of generation 1 over generation 0; after each kill from the same state."""
    env, new = environment(endpoint, tmp_path), longer_sets[1]
    started = {} if before is None else published(longer_sets[0])

    def push(turn, kill_after=None):
        return run(env, "push", str(new), f"s3://{BUCKET}/{prefix}/{turn}", kill_after=kill_after)

    def prepare(turn):
        for name, data in started.items():
            sha256 = hashlib.sha256(data).hexdigest()
            s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{turn}/{name}", Body=data, Metadata={"sha256": sha256})

    prepare("undisturbed")
    push("undisturbed")
    wanted = published(new)
    assert objects(s3, f"{prefix}/undisturbed") == wanted
    killed = 0
    for turn, moment in moments(run.seconds):
        prepare(turn)
        killed += push(turn, kill_after=moment)
        found = objects(s3, f"{prefix}/{turn}")
        assert whole(found) in (before, 1)
        push(turn)
        assert objects(s3, f"{prefix}/{turn}") == wanted
        if killed == KILLS:
            break
    assert killed == KILLS


@pytest.mark.slow
@pytest.mark.parametrize("before", [None, 0])
def test_pull(longer_sets, endpoint, s3, prefix, tmp_path, before):
    env, new, url = environment(endpoint, tmp_path), longer_sets[1], f"s3://{BUCKET}/{prefix}"
    run(env, "push", str(new), url)
    wanted = published(new)

    def pull(turn, kill_after=None):
        return run(env, "pull", url, str(tmp_path / str(turn)), kill_after=kill_after)

    def prepare(turn):
        if before is not None:
            pull_from = longer_sets[before]
            shutil.copytree(pull_from, tmp_path / str(turn), ignore=shutil.ignore_patterns("recipe.toml"))

    prepare("undisturbed")
    pull("undisturbed")
    assert files(tmp_path / "undisturbed") == wanted
    killed = 0
    for turn, moment in moments(run.seconds):
        prepare(turn)
        killed += pull(turn, kill_after=moment)
        folder = tmp_path / str(turn)
        found = files(folder) if folder.exists() else {}
        assert whole(found) in (before, 1)
        visible = {name for name in found if not name.startswith(".")}
        assert visible <= set(wanted)
        pull(turn)
        assert files(folder) == wanted
        assert [path.name for path in folder.iterdir() if path.is_dir()] == []
        if killed == KILLS:
            break
    assert killed == KILLS


def test_push_into_a_folder(longer_sets, tmp_path):
    """The same where files are written here, with temporary ones beside them."""
    new, wanted = longer_sets[1], published(longer_sets[1])
    env = environment("", tmp_path)
    run(env, "push", str(new), str(tmp_path / "undisturbed"))
    for turn, moment in islice(moments(run.seconds), 8):
        folder = tmp_path / str(turn)
        run(env, "push", str(new), str(folder), kill_after=moment)
        assert whole(files(folder) if folder.exists() else {}) in (None, 1)
        run(env, "push", str(new), str(folder))
        assert files(folder) == wanted
