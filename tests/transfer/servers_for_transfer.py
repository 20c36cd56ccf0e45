"""Real servers for transfers: moto's S3 in a process of its own or in a thread, a web server that knows ranges."""

import http.server
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager

import boto3
from botocore.config import Config

ACCESS, SECRET = "AKIAPUBLICLYKNOWN", "s3cr3t-VeryMuchSo-9f8e7d"
BUCKET = "bucket"

_MOTO = """
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def s3_server():
    """moto's S3 server in its own process (its clients are not slowed by our threads); yields its endpoint."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()
        process.wait(20)


def s3_client(endpoint):
    """boto3's client: another implementation to look at the bucket with."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 3}),
    )


def objects(client, prefix):
    """File name -> bytes of what lies under a prefix, hidden files too."""
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/").get("Contents", [])
    keys = [item["Key"] for item in listed]
    return {key.removeprefix(f"{prefix}/"): client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


def files(folder):
    """File name -> bytes of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class WebServer:
    """Serves a folder over HTTP, with ranges unless told otherwise; `log` has (method, path, range, authorization).

    `faults` maps a file name to a list of what happens to the next requests for it: "503", "403", "drop" (a third of
    the body, then the connection ends), "stall" (a third, then silence), "other" (answered with another ETag), "flip".
    """

    def __init__(self, folder, ranges=True):
        self.folder, self.ranges = folder, ranges
        self.log, self.faults = [], {}
        self.silence = threading.Event()

    def __enter__(self):
        outer = self

        class Handler(_Handler):
            server_of = outer

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/data"
        return self

    def __exit__(self, *_):
        self.silence.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def bodies(self, name):
        """Ranges of the GETs of a file, in their order."""
        return [span for method, path, span, _ in self.log if method == "GET" and path == name]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        outer, name = self.server_of, self.path.rpartition("/")[2]
        outer.log.append((self.command, name, self.headers.get("Range"), self.headers.get("Authorization")))
        fault = outer.faults[name].pop(0) if body and outer.faults.get(name) else ""
        path = outer.folder / name
        if fault.isdigit() or not path.is_file():
            self.send_response(int(fault or 404))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if outer.ranges else None
        start, end = (int(found[1]), int(found[2] or len(data) - 1) + 1) if found else (0, len(data))
        part = data[start:end]
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.send_header("ETag", '"other"' if fault == "other" else '"one"')
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if not body:
            return
        if fault == "flip":
            part = bytes([part[0] ^ 1]) + part[1:]
        if fault in ("drop", "stall"):
            part = part[: len(part) // 3]
        try:
            self.wfile.write(part)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
        if fault == "stall":
            outer.silence.wait(60)
        if fault in ("drop", "stall"):
            self.close_connection = True


def environment(endpoint, home):
    """Environment of a command that may use the S3 server; nothing of the caller's AWS settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **kept,
        "HOME": str(home),
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "OMP_NUM_THREADS": "1",
    }
