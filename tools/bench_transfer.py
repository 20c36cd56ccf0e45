#!/usr/bin/env python3
"""Time push and pull beside the tools they stand on: boto3, obstore, cp, sha256.

    python tools/bench_transfer.py --json runs/bench-transfer.json

The bucket is that of moto's S3 server, in a process of its own on this machine (pip install 'moto[server]'): its own
speed bounds what is seen. All take turns, so a busy machine slows all of them; read the ratios to the named baseline,
medians over the rounds of ratios within a round.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

try:
    import boto3
    import obstore
    from obstore.store import S3Store
except ModuleNotFoundError as error:
    sys.exit(f"bench_transfer: {error.name} is missing; install it with: pip install 'moto[server]'")

from mimic_wds.pairs import Counts, PairSample, Scene
from mimic_wds.storage.layout import sample_key
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.packing import pack
from mimic_wds.storage.places import open_place, open_target
from mimic_wds.storage.pulling import pull
from mimic_wds.storage.pushing import push
from mimic_wds.storage.staging import SceneStage
from mimic_wds.storage.transfer import How

BUCKET = "bucket"

#: What each is measured against.
BASELINES = {
    "push": "boto3 upload_file",
    "push to a folder": "cp",
    "pull": "obstore get",
    "pull from a folder": "cp",
}

_SERVER = """
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def main() -> int:
    """Make a data set and a server, let the tools take turns, report."""
    args = parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-transfer-") as folder, s3_server() as endpoint:
        keys = {"AWS_ACCESS_KEY_ID": "public", "AWS_SECRET_ACCESS_KEY": "public", "AWS_REGION": "us-east-1"}
        os.environ.update(keys, AWS_ENDPOINT_URL=endpoint)
        data = Path(folder) / "set"
        manifest = make_data_set(data, args.megabytes)
        size = sum(shard.bytes for shard in manifest.shards)
        seconds: dict[str, list[float]] = {}
        for number in range(args.repetitions):
            for name, work in tools(data, manifest, Path(folder) / f"round{number}", f"round{number}", args.workers):
                begin = time.perf_counter()
                work()
                seconds.setdefault(name, []).append(time.perf_counter() - begin)
            shutil.rmtree(Path(folder) / f"round{number}")
    report = summary(seconds, size, len(manifest.shards))
    print_report(report)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def parse_args() -> argparse.Namespace:
    """The command line."""
    description, _, notes = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=200, help="of the data set that is copied (default: 200)")
    parser.add_argument("--workers", type=int, default=8, help="files at once (default: 8)")
    parser.add_argument("--repetitions", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all numbers to this file")
    return parser.parse_args()


@contextmanager
def s3_server() -> Iterator[str]:
    """moto's server; yields its endpoint."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-W", "ignore", "-c", _SERVER]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        endpoint = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="public",
            aws_secret_access_key="public",
            region_name="us-east-1",
        ).create_bucket(Bucket=BUCKET)
        try:
            yield endpoint
        finally:
            process.stdin.close()


def make_data_set(folder: Path, megabytes: int) -> Manifest:
    """Shards of 25 MB with members that do not compress and are no pictures."""
    folder.mkdir()
    staging = folder.parent / "staging"
    staging.mkdir()
    scene = Scene(source="noise", name="noise", path="noise")
    with SceneStage(staging, 0) as stage:
        count = max(1, megabytes * 10**6 // 200_000)
        for number in range(count):
            stage.add(_sample(number))
        stage.finish(scene, Counts(kept=count))
    description = {"criteria": {}, "versions": {}, "licences": {"noise": ""}}
    return pack(staging, 1, folder, "set", 25 * 10**6, description)


def _sample(number: int) -> PairSample:
    frames = (str(2 * number), str(2 * number + 1))
    return PairSample(
        key=sample_key("noise", "noise", *frames),
        source="noise",
        scene="noise",
        frame0=frames[0],
        frame1=frames[1],
        time0_s=-1.0,
        time1_s=-1.0,
        image0_jpg=os.urandom(98_000),
        image1_jpg=os.urandom(98_000),
        H_0to1=np.eye(3),
        corr_0to1=np.full(196, -1, np.int16),
        overlap=0.0,
        num_inliers=4,
        size=(224, 224),
        patch_size=16,
    )


def tools(
    data: Path, manifest: Manifest, scratch: Path, prefix: str, workers: int
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each way to copy or read the data set once, in turn."""
    scratch.mkdir()
    names, how = [shard.name for shard in manifest.shards], How(workers=workers)
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    store = S3Store(BUCKET, prefix=f"{prefix}/plain", client_options={"allow_http": True})
    bucket = f"s3://{BUCKET}/{prefix}/ours"
    yield "sha256", lambda: [hashlib.sha256((data / name).read_bytes()).digest() for name in names]
    yield "cp", lambda: subprocess.run(["cp", "-r", data, scratch / "cp"], check=True)
    yield (
        "boto3 upload_file",
        lambda: [client.upload_file(str(data / name), BUCKET, f"{prefix}/boto3/{name}") for name in names],
    )
    yield "obstore put", lambda: [obstore.put(store, name, data / name) for name in names]
    yield "push", lambda: push(data, open_target(bucket), how)
    yield "push again", lambda: push(data, open_target(bucket), how)
    yield "push to a folder", lambda: push(data, open_target(scratch / "pushed"), how)
    yield "obstore get", lambda: [_get(store, name, scratch / name) for name in names]
    yield "pull", lambda: pull(open_place(bucket), scratch / "pulled", how)
    yield "pull again", lambda: pull(open_place(bucket), scratch / "pulled", how)
    yield "pull from a folder", lambda: pull(open_place(data), scratch / "copied", how)


def _get(store: S3Store, name: str, path: Path) -> None:
    with path.open("wb") as file:
        for chunk in obstore.get(store, name).stream():
            file.write(chunk)


def summary(seconds: dict[str, list[float]], size: int, shards: int) -> dict[str, object]:
    """All numbers, as JSON."""
    rows = {}
    for name, times in seconds.items():
        base = BASELINES.get(name)
        ratios = [b / own for b, own in zip(seconds[base], times, strict=True)] if base else []
        rows[name] = {
            "seconds": times,
            "mb_per_s": size / 1e6 / statistics.median(times),
            "baseline": base,
            "times_baseline": statistics.median(ratios) if ratios else None,
        }
    return {"command": " ".join(sys.argv), "megabytes": size / 1e6, "shards": shards, "tools": rows}


def print_report(report: dict) -> None:
    """The table."""
    print(f"{report['megabytes']:.0f} MB in {report['shards']} shards")
    print(f"{'':<22}{'s':>8}{'MB/s':>8}   beside")
    for name, row in report["tools"].items():
        beside = f"{row['times_baseline']:.2f} x {row['baseline']}" if row["baseline"] else ""
        print(f"{name:<22}{statistics.median(row['seconds']):>8.2f}{row['mb_per_s']:>8.0f}   {beside}")


if __name__ == "__main__":
    sys.exit(main())
