#!/usr/bin/env python3
"""Time reading a data set from a bucket, in training order, beside reading it from a folder and plain downloads.

    python tools/bench_remote.py --json runs/bench-remote.json

Every way reads all samples of an epoch once, shuffled, without decoding them, in batches shared by some threads. The
bucket is that of moto's S3 server, in a process of its own on this machine (pip install 'moto[server]'): its own speed
bounds what is seen, that of ranged reads above all, for each of which it copies the whole shard. So these are read from
a web server, too, that waits --latency-ms before each answer, as a bucket far away does. All take turns, so a busy
machine slows all of them; read the ratios to the named baseline, medians over the rounds of ratios within a round.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

try:
    import obstore
    from bench_transfer import BUCKET, make_data_set, s3_server
    from obstore.store import S3Store
except ModuleNotFoundError as error:
    sys.exit(f"bench_remote: {error.name} is missing; install it with: pip install 'moto[server]'")

from mimic_wds.loading.dataset import Dataset
from mimic_wds.loading.order import Order
from mimic_wds.loading.remote import Remote
from mimic_wds.storage.places import open_target
from mimic_wds.storage.pushing import push
from mimic_wds.storage.transfer import How

#: What each is measured against.
BASELINES = {
    "bucket, cold cache": "obstore get",
    "bucket, warm cache": "folder",
    "bucket, ranged reads": "obstore get",
    "far, ranged reads": "far, one by one",
    "far, cold cache": "far, one by one",
}

#: A web server that answers late: sys.argv are its folder and the seconds it waits.
_FAR = """
import http.server, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self):
        time.sleep(float(sys.argv[2]))
        with open(os.path.join(sys.argv[1], os.path.basename(self.path)), "rb") as file:
            size, span = os.fstat(file.fileno()).st_size, self.headers.get("Range", "")
            first, last = span.removeprefix("bytes=").split("-") if span else (0, "")
            first, stop = int(first), int(last or size - 1) + 1
            self.send_response(206 if span else 200)
            if span:
                self.send_header("Content-Range", f"bytes {first}-{stop - 1}/{size}")
            self.send_header("Content-Length", str(stop - first))
            self.end_headers()
            self.wfile.flush()
            os.sendfile(self.connection.fileno(), file.fileno(), first, stop - first)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_port, flush=True)
server.serve_forever()
"""


class Samples(Dataset):
    """Pairs of any size, as they lie in the shards."""

    kind = "pairs"


def main() -> int:
    """Publish a data set to a server, let the ways to read it take turns, report."""
    args = parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-remote-") as folder, ExitStack() as servers:
        endpoint = servers.enter_context(s3_server())
        keys = {"AWS_ACCESS_KEY_ID": "public", "AWS_SECRET_ACCESS_KEY": "public", "AWS_REGION": "us-east-1"}
        os.environ.update(keys, AWS_ENDPOINT_URL=endpoint)
        data = Path(folder) / "set"
        manifest = make_data_set(data, args.megabytes)
        far = servers.enter_context(far_server(data, args.latency_ms / 1000))
        push(data, open_target(f"s3://{BUCKET}/set"), How())
        seconds: dict[str, list[float]] = {}
        for number in range(args.repetitions):
            scratch = Path(folder) / f"round{number}"
            for name, work in ways(data, far, scratch, args.threads):
                begin = time.perf_counter()
                work()
                seconds.setdefault(name, []).append(time.perf_counter() - begin)
            shutil.rmtree(scratch)
    size = sum(shard.bytes for shard in manifest.shards)
    report = summary(seconds, size, manifest.num_samples, len(manifest.shards))
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
    parser.add_argument("--megabytes", type=int, default=200, help="of the data set that is read (default: 200)")
    parser.add_argument("--threads", type=int, default=4, help="that read at once (default: 4)")
    parser.add_argument("--latency-ms", type=float, default=30.0, help="of the server far away (default: 30)")
    parser.add_argument("--repetitions", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all numbers to this file")
    return parser.parse_args()


@contextmanager
def far_server(folder: Path, latency_s: float) -> Iterator[str]:
    """A web server that answers late; yields its address."""
    command = [sys.executable, "-c", _FAR, str(folder), str(latency_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/set"
        finally:
            process.kill()


def ways(data: Path, far: str, scratch: Path, threads: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each way to read all samples once, in turn."""
    scratch.mkdir()
    bucket = f"s3://{BUCKET}/set"
    store = S3Store(BUCKET, prefix="set", client_options={"allow_http": True})
    names = sorted(path.name for path in data.glob("*.tar"))
    cache, none = Remote(cache=str(scratch / "cache")), Remote(cache="none")
    yield "folder", lambda: read_epoch(data, none, threads)
    yield "obstore get", lambda: download(store, names, scratch, threads)
    yield "bucket, cold cache", lambda: read_epoch(bucket, cache, threads)
    yield "bucket, warm cache", lambda: read_epoch(bucket, cache, threads)
    yield "bucket, ranged reads", lambda: read_epoch(bucket, none, threads)
    yield "far, one by one", lambda: read_epoch(far, none, threads, ask=False)
    yield "far, ranged reads", lambda: read_epoch(far, none, threads)
    yield "far, cold cache", lambda: read_epoch(far, Remote(cache=str(scratch / "far")), threads)


def read_epoch(where: Path | str, remote: Remote, threads: int, ask: bool = True) -> None:
    """All samples in the order of training, batches of 64; with `ask` as a loader does, some batches ahead."""
    with Samples(where, remote) as samples, ThreadPoolExecutor(threads) as pool:
        order = Order([shard.samples for shard in samples.manifest.shards], 64, tail="pad")
        samples.expect(order.shards_ahead(0, 0, order._all_rows))
        batches = [order.batch(0, step).tolist() for step in range(order.steps_per_epoch)]
        for step, batch in enumerate(batches):
            for coming in batches[step + 1 : step + 2] if step else batches[:2]:
                if ask:
                    samples.will_read(coming)
            for _ in pool.map(samples.read, batch):
                pass


def download(store: S3Store, names: list[str], scratch: Path, threads: int) -> None:
    """The shards whole, as files, some at once."""

    def get(name: str) -> None:
        with (scratch / name).open("wb") as file:
            for chunk in obstore.get(store, name).stream():
                file.write(chunk)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(get, names))


def summary(seconds: dict[str, list[float]], size: int, samples: int, shards: int) -> dict[str, object]:
    """All numbers, as JSON."""
    rows = {}
    for name, times in seconds.items():
        base = BASELINES.get(name)
        ratios = [b / own for b, own in zip(seconds[base], times, strict=True)] if base else []
        rows[name] = {
            "seconds": times,
            "mb_per_s": size / 1e6 / statistics.median(times),
            "samples_per_s": samples / statistics.median(times),
            "baseline": base,
            "times_baseline": statistics.median(ratios) if ratios else None,
        }
    return {"command": " ".join(sys.argv), "megabytes": size / 1e6, "samples": samples, "shards": shards, "ways": rows}


def print_report(report: dict) -> None:
    """The table."""
    print(f"{report['megabytes']:.0f} MB in {report['shards']} shards, {report['samples']} samples")
    print(f"{'':<22}{'s':>8}{'MB/s':>8}{'samples/s':>11}   beside")
    for name, row in report["ways"].items():
        beside = f"{row['times_baseline']:.2f} x {row['baseline']}" if row["baseline"] else ""
        median = statistics.median(row["seconds"])
        print(f"{name:<22}{median:>8.2f}{row['mb_per_s']:>8.0f}{row['samples_per_s']:>11.0f}   {beside}")


if __name__ == "__main__":
    sys.exit(main())
