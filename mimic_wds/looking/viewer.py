"""A small web server for one reader on this machine: pages about a data set, read-only, on 127.0.0.1 only.

It answers GET and HEAD, and only when it is addressed as this machine, so that no other site can be made to read from
it under its own name (DNS rebinding). Addresses never become names of files: pages are three assets, everything else
comes from the data set's index.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from mimic_wds.looking.viewer_data import NotThere, Viewed
from mimic_wds.looking.viewer_queries import MOST, read_query, whole_number

#: The names under which this machine is addressed; any port, for tunnels.
HOSTS = ("127.0.0.1", "localhost", "[::1]")

#: Seconds after which a connection without requests is closed.
IDLE_S = 60.0

#: Largest number of a sample that an address may name.
LARGEST = 2**53

#: Of every answer. Scripts and styles come from here only and pictures too; nothing may frame, embed or keep a page.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

#: Ending of a member -> its type; all others are bytes to be downloaded.
TYPES = {"jpg": "image/jpeg", "png": "image/png", "json": "application/json"}

_HTML, _JS, _CSS = "text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/css; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent."""

    body: bytes
    kind: str = "application/json"
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Cache-Control": "no-store"})


class ViewerServer(ThreadingHTTPServer):
    """Serves one data set; `serve_forever` until `shutdown`, or until it is interrupted."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, viewed: Viewed, port: int = 0):
        """Listen on a port of 127.0.0.1, 0 = any that is free. Raises OSError when it is taken."""
        self.viewed = viewed
        self.assets = read_assets()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """Where it is reached from this machine."""
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error; anything else is one line."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"viewer: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


def read_assets() -> dict[str, Answer]:
    """Path -> page, script and style of the viewer."""
    folder = files("mimic_wds.looking") / "assets"
    kinds = {"view.html": _HTML, "view.js": _JS, "view.css": _CSS}
    found = {f"/assets/{name}": Answer((folder / name).read_bytes(), kind) for name, kind in kinds.items()}
    return {**found, "/": found.pop("/assets/view.html")}


def is_here(host: str | None) -> bool:
    """True if the Host header of a request names this machine, with any port or none."""
    name, _, port = (host or "").lower().rpartition(":")
    if not name or not (port.isascii() and port.isdecimal()):
        name = (host or "").lower()
    return name in HOSTS


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: ViewerServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "mimic-shard", ""
    timeout = IDLE_S

    def do_GET(self) -> None:
        self._send(self._answer())

    def do_HEAD(self) -> None:
        self._send(self._answer())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what the base class does not understand; an unknown method is one that is not allowed."""
        is_method = code == HTTPStatus.NOT_IMPLEMENTED
        answer = _refusal(405 if is_method else code, "only GET and HEAD" if is_method else message or "not understood")
        more = {"Allow": "GET, HEAD"} if is_method else {}
        self.close_connection = True
        self._send(Answer(answer.body, status=answer.status, headers={**answer.headers, **more, "Connection": "close"}))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        length = {} if answer.status == HTTPStatus.NOT_MODIFIED else {"Content-Length": str(len(answer.body))}
        for name, value in {"Content-Type": answer.kind, **length, **HEADERS, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and answer.status != HTTPStatus.NOT_MODIFIED:
            self.wfile.write(answer.body)

    def _answer(self) -> Answer:
        """The answer to a request; every failure is one, too."""
        if not is_here(self.headers.get("Host")):
            return _refusal(403, "this viewer answers to this machine only: open the address that it printed")
        if self.headers.get("Sec-Fetch-Site") == "cross-site" and self.headers.get("Sec-Fetch-Mode") != "navigate":
            return _refusal(403, "this viewer answers its own pages only")
        try:
            return self._route()
        except NotThere as error:
            return _json({"error": str(error), "near": error.near}, 404)
        except _Wrong as error:
            return _refusal(400, str(error))
        except ValueError as error:
            return _refusal(500, f"damaged: {error}")
        except OSError as error:
            return _refusal(502, str(error))

    def _route(self) -> Answer:
        parts = _asked(lambda: urlsplit(self.path))
        fields = dict(_asked(lambda: parse_qsl(parts.query, keep_blank_values=True, max_num_fields=30)))
        path = parts.path
        if path in self.server.assets:
            return self.server.assets[path]
        if path.startswith("/sample/") and path.count("/") == 2:
            return self.server.assets["/"]
        if path in _QUESTIONS:
            return _json(_QUESTIONS[path](self.server.viewed, fields))
        if path.startswith("/member/") and path.count("/") == 3:
            number, name = path.removeprefix("/member/").split("/")
            return self._member(_asked(lambda: whole_number({"n": number}, "n", 0, 0, LARGEST)), unquote(name), fields)
        return _refusal(404, "no such page")

    def _member(self, number: int, name: str, fields: Mapping[str, str]) -> Answer:
        etag = self.server.viewed.etag(number, name)
        headers = {"Cache-Control": "private, no-cache", "ETag": etag}
        if self.headers.get("If-None-Match") == etag:
            return Answer(b"", status=304, headers=headers)
        key, data = self.server.viewed.member(number, name)
        kind = TYPES.get(name.rpartition(".")[2], "application/octet-stream")
        if "download" in fields or kind == "application/octet-stream":
            headers["Content-Disposition"] = f'attachment; filename="{key}.{name}"'
        return Answer(data, kind, headers=headers)


class _Wrong(Exception):
    """A question that cannot be answered because of how it is asked."""


def _asked(read: Callable[[], Any]) -> Any:
    """What is read from an address. Raises _Wrong."""
    try:
        return read()
    except ValueError as error:
        raise _Wrong(str(error)) from None


def _page(viewed: Viewed, fields: Mapping[str, str]) -> object:
    query = _asked(lambda: viewed.checked(read_query(fields)))
    offset = _asked(lambda: whole_number(fields, "offset", 0, 0, LARGEST))
    limit = _asked(lambda: whole_number(fields, "limit", 24, 0, MOST))
    return viewed.page(query, offset, limit, again="again" in fields)


def _stop(viewed: Viewed, fields: Mapping[str, str]) -> object:
    return {"stopped": viewed.scans.stop(_asked(lambda: read_query(fields)))}


def _sample(viewed: Viewed, fields: Mapping[str, str]) -> object:
    number = _asked(lambda: whole_number(fields, "number", 0, 0, LARGEST)) if fields.get("number") else None
    if fields.get("key"):
        number = viewed.number_of(fields["key"], number)
    if number is None:
        raise _Wrong("expected a key or a number")
    return viewed.sample(number)


#: Path -> what answers it, from the data set and the fields of the address.
_QUESTIONS: dict[str, Callable[[Viewed, Mapping[str, str]], object]] = {
    "/api/data-set": lambda viewed, fields: viewed.data_set(),
    "/api/scenes": lambda viewed, fields: viewed.scenes(fields.get("source", ""), fields.get("like", "")),
    "/api/page": _page,
    "/api/stop": _stop,
    "/api/sample": _sample,
}


def _json(value: object, status: int = 200) -> Answer:
    return Answer(msgspec.json.encode(value), status=status)


def _refusal(status: int, message: str) -> Answer:
    return _json({"error": message}, status)
