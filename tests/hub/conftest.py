"""A fake of the Hugging Face Hub's HTTP API, written from the requests that the real client, huggingface_hub, makes.

It knows what this project asks for: information about a repository, listing a folder, preupload, Git LFS batch and
upload (the client's way without Xet storage, whose protocol is not faked), commits, and files by revision. Large files
are redirected to a second server, as the Hub does. What the real Hub does beyond this is not shown by tests with it.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
from fnmatch import fnmatch
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub.constants
import pytest
from samples import make_data_set

TOKEN = "hf_PubliclyKnownTokenOfNobody"
REPO = "lab/pairs"
URL = f"hf://datasets/{REPO}"

#: Entries on a page of a folder's list; the Hub has 1,000.
PAGE = 3


class FakeHub:
    """Repositories in memory. `log` has (server, method, path, authorization, bytes of the answer's body)."""

    token, repo, url = TOKEN, REPO, URL

    def __init__(self):
        self.commits = {}  # commit -> {path: content, or the sha256 of a large file as a str}
        self.branches = {}  # (repository, branch) -> commit
        self.history = []  # (commit, message)
        self.stored = {}  # sha256 -> content of large files
        self.private, self.read_only = set(), False
        self.answers = {}  # (method, part of a path) -> statuses of the next such requests
        self.before_commit = lambda: None  # called when a commit arrives
        self.log = []

    def __enter__(self):
        self.api, self.storage = _Server(self, _Api), _Server(self, _Storage)
        return self

    def __exit__(self, *_):
        for server in (self.api, self.storage):
            server.stop()

    def create(self, repo, branch="main"):
        """A repository with a first commit."""
        self.commit(repo, branch, {".gitattributes": b"*.tar filter=lfs\n"}, "initial commit")

    def commit(self, repo, branch, changes, message):
        """Add files to a branch; returns the commit."""
        files = {**self.commits.get(self.branches.get((repo, branch)), {}), **changes}
        oid = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits[oid] = files
        self.branches[repo, branch] = oid
        self.history.append((oid, message))
        return oid

    def files(self, repo=REPO, revision="main"):
        """Path -> content."""
        files = self.commits[self.branches[repo, revision]]
        return {path: self.stored[data] if isinstance(data, str) else data for path, data in files.items()}

    def uploads(self):
        """Bodies that were sent: (path, bytes)."""
        return [(path, size) for _, method, path, _, size in self.log if method == "sent"]


class _Server:
    def __init__(self, hub, handler):
        handler = type("Handler", (handler,), {"hub": hub})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_name = ""

    def log_message(self, *_):
        pass

    def answer(self, status=200, body=b"", **headers):
        """Send an answer; JSON unless bytes."""
        if not isinstance(body, bytes):
            body, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        self.hub.log.append((self.server_name, self.command, self.path, self.headers["Authorization"], len(body)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_part(self, data):
        """Send a file, or the range of it that is asked for."""
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        if not found:
            return self.answer(200, data, ETag=etag)
        start = int(found[1])
        part = data[start : int(found[2]) + 1 if found[2] else None]
        return self.answer(206, part, ETag=etag, Content_Range=f"bytes {start}-{start + len(part) - 1}/{len(data)}")

    def fault(self):
        """Answer with a status that a test wants; True if so."""
        for (method, part), statuses in self.hub.answers.items():
            if method == self.command and part in self.path and statuses:
                self.answer(statuses.pop(0), {"error": "asked for by the test"})
                return True
        return False

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))


class _Storage(_Handler):
    """Where large files are."""

    server_name = "storage"

    def do_GET(self):
        if not self.fault():
            self.send_part(self.hub.stored[urlsplit(self.path).path[1:]])

    def do_PUT(self):
        sha256, data = urlsplit(self.path).path[1:], self.body()
        self.hub.log.append(("storage", "sent", sha256, self.headers["Authorization"], len(data)))
        if self.fault():
            return
        if hashlib.sha256(data).hexdigest() != sha256:
            self.answer(400, b"BadDigest")
            return
        self.hub.stored[sha256] = data
        self.answer(200)


class _Api(_Handler):
    """The Hub itself."""

    server_name = "api"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        url = urlsplit(self.path)
        if self.fault():
            return
        if found := re.fullmatch(r"/api/datasets/([\w.-]+/[\w.-]+)(?:/revision/([^/]+))?", url.path):
            if self.may(found[1]) and (commit := self.revision(found[1], unquote(found[2] or "main"))):
                self.answer(200, {"id": found[1], "sha": commit})
        elif found := re.fullmatch(r"/api/datasets/([\w.-]+/[\w.-]+)/tree/([^/]+)(?:/(.+))?", url.path):
            if self.may(found[1]) and (commit := self.revision(found[1], unquote(found[2]))):
                self.tree(commit, unquote(found[3] or ""), int(parse_qs(url.query).get("cursor", ["0"])[0]))
        elif found := re.fullmatch(r"/datasets/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", url.path):
            if self.may(found[1]) and (commit := self.revision(found[1], unquote(found[2]))):
                self.resolve(commit, unquote(found[3]))
        else:
            self.answer(404)

    def do_POST(self):
        url, data = urlsplit(self.path), self.body()
        if self.fault():
            return
        if url.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif url.path.startswith("/verify/"):
            self.answer(200 if json.loads(data)["oid"] in self.hub.stored else 404)
        elif found := re.fullmatch(r"/api/datasets/([\w.-]+/[\w.-]+)/(preupload|commit)/([^/]+)", url.path):
            if self.may(found[1], write=True) and (commit := self.revision(found[1], unquote(found[3]))):
                if found[2] == "preupload":
                    self.preupload(commit, json.loads(data))
                else:
                    self.make_commit(found[1], unquote(found[3]), [json.loads(line) for line in data.splitlines()])
        elif found := re.fullmatch(r"/datasets/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", url.path):
            if self.may(found[1], write=True):
                self.batch(json.loads(data)["objects"])
        else:
            self.answer(404)

    def may(self, repo, write=False):
        """Whether the caller may see or change a repository; else it is answered."""
        is_known = self.headers["Authorization"] == f"Bearer {TOKEN}"
        if not any(repo == name for name, _ in self.hub.branches) or (repo in self.hub.private and not is_known):
            self.answer(404 if is_known else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return False
        if write and (not is_known or self.hub.read_only):
            self.answer(403, {"error": "You don't have the rights to create a commit"})
            return False
        return True

    def revision(self, repo, name):
        """The commit of a revision, or None, and then it is answered."""
        commit = name if name in self.hub.commits else self.hub.branches.get((repo, name))
        if commit is None:
            self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        return commit

    def tree(self, commit, folder, cursor):
        prefix = f"{folder}/" if folder else ""
        below = {
            path.removeprefix(prefix): d for path, d in self.hub.commits[commit].items() if path.startswith(prefix)
        }
        if not below:
            self.answer(404, {"error": "not there"}, X_Error_Code="EntryNotFound")
            return
        folders = sorted({path.partition("/")[0] for path in below if "/" in path})
        entries = [{"type": "directory", "path": prefix + name, "oid": "0" * 40} for name in folders]
        entries += [self.entry(prefix + path, data) for path, data in sorted(below.items()) if "/" not in path]
        headers = {}
        if len(entries) > cursor + PAGE:
            headers["Link"] = f'<{self.hub.api.url}{urlsplit(self.path).path}?cursor={cursor + PAGE}>; rel="next"'
        self.answer(200, entries[cursor : cursor + PAGE], **headers)

    def entry(self, path, data):
        if isinstance(data, bytes):
            return {"type": "file", "path": path, "size": len(data), "oid": blob_id(data)}
        size = len(self.hub.stored[data])
        lfs = {"oid": data, "size": size, "pointerSize": 130}
        return {"type": "file", "path": path, "size": size, "oid": blob_id(data.encode()), "lfs": lfs}

    def resolve(self, commit, path):
        data = self.hub.commits[commit].get(path)
        if data is None:
            self.answer(404, {"error": "not there"}, X_Error_Code="EntryNotFound")
        elif isinstance(data, bytes):
            self.send_part(data)
        else:
            self.answer(302, Location=f"{self.hub.storage.url}/{data}?X-Amz-Signature=signed-secret")

    def preupload(self, commit, asked):
        there = self.hub.commits[commit]
        ignored = asked.get("gitIgnore", there.get(".gitignore", b"").decode()).splitlines()
        files = []
        for file in asked["files"]:
            data, name = there.get(file["path"]), file["path"].rpartition("/")[2]
            files.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if name.endswith(".tar") else "regular",
                    "shouldIgnore": any(fnmatch(name, pattern) for pattern in ignored),
                    "oid": data if isinstance(data, str) else blob_id(data) if data is not None else None,
                }
            )
        self.answer(200, {"files": files})

    def batch(self, objects):
        for item in objects:
            if item["oid"] not in self.hub.stored:
                item["actions"] = {
                    "upload": {"href": f"{self.hub.storage.url}/{item['oid']}?X-Amz-Signature=signed-secret"},
                    "verify": {"href": f"{self.hub.api.url}/verify/{item['oid']}"},
                }
        self.answer(200, {"transfer": "basic", "objects": objects})

    def make_commit(self, repo, branch, lines):
        self.hub.before_commit()
        head, changes = lines[0]["value"], {}
        if head.get("parentCommit") not in (None, self.hub.branches[repo, branch]):
            self.answer(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        for line in lines[1:]:
            value = line["value"]
            changes[value["path"]] = base64.b64decode(value["content"]) if line["key"] == "file" else value["oid"]
            if line["key"] == "lfsFile" and value["oid"] not in self.hub.stored:
                self.answer(400, {"error": "a large file is missing"})
                return
        oid = self.hub.commit(repo, branch, changes, head["summary"])
        url = f"{self.hub.api.url}/datasets/{repo}/commit/{oid}"
        self.answer(200, {"success": True, "commitOid": oid, "commitUrl": url, "pullRequestUrl": None})


def blob_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A fake Hub with one empty repository, which the client is told to use."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with FakeHub() as fake:
        fake.create(REPO)
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", fake.api.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield fake
        huggingface_hub.close_session()


@pytest.fixture
def data_set(tmp_path):
    """A folder with a data set in some shards."""
    folder = tmp_path / "set"
    make_data_set(folder, per_scene=(5, 0, 6), name="pairs")
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# pairs\n")
    (folder / "recipe.toml").write_text("stays here")
    return folder
