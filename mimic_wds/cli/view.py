"""`mimic-shard view`: a data set in the browser."""

import os
import sys
import webbrowser

import msgspec
import tyro

from mimic_wds.cli.console import say
from mimic_wds.looking.viewer import ViewerServer
from mimic_wds.looking.viewer_data import Viewed
from mimic_wds.storage.browse import open_browser


def view(
    data_set: tyro.conf.Positional[str],
    /,
    port: int = 0,
    open: bool = True,
    endpoint: str = "",
    anonymous: bool = False,
    json: bool = False,
) -> int:
    """Look through a data set in the browser: filters, pictures, matching patches. Ctrl-C ends it.

    Example: mimic-shard view s3://bucket/clips --port 8080

    Args:
        data_set: Folder of the data set, or s3://, gs://, az://, https:// or hf://datasets/ URL.
        port: Port on this machine, from where alone it can be reached; 0 = any that is free.
        open: Open the browser, too.
        endpoint: Address of an S3-compatible service; default: AWS_ENDPOINT_URL, or the provider's own.
        anonymous: Send no credentials, for public buckets.
        json: Print the address as JSON, and open no browser.

    Returns:
        0
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"--port must be 0 to 65535, got {port}")
    viewed = Viewed(open_browser(data_set, endpoint=endpoint, anonymous=anonymous))
    with _listen(viewed, port) as server:
        if json:
            print(msgspec.json.encode({"url": server.url, "port": server.server_port}).decode(), flush=True)
        else:
            say(f"{data_set} at {server.url} (Ctrl-C ends this)")
            sys.stdout.flush()
        if open and not json and _has_display():
            webbrowser.open(server.url)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            viewed.scans.stop_all()
    return 0


def _listen(viewed: Viewed, port: int) -> ViewerServer:
    try:
        return ViewerServer(viewed, port)
    except OSError as error:
        raise OSError(f"port {port} of this machine cannot be used: {error.strerror}; try --port 0") from None


def _has_display() -> bool:
    """False where a browser could only open in the terminal."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
