"""Buckets and web servers as places, through obstore.

Measured of obstore 0.12 against a server with faults: it retries answers of 5xx, resumes a dropped or stalled body by a
ranged request, keeps the time limits, aborts a multipart upload whose input fails, and on S3 signs the sha256 of each
part, which the server checks. Missing were, and are here: resuming a body more often than one request is retried as
long as it gets on, servers without ranges, a file replaced while it is read, user and password in a URL, messages
without credentials.
"""

import mimetypes
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from mimic_wds.storage.addresses import mask, s3_options, split_url
from mimic_wds.storage.folder_place import hashed_chunks
from mimic_wds.storage.layout import (
    CARD_NAME,
    CROISSANT_NAME,
    FIGURE_NAME,
    MANIFEST_NAME,
    REPORT_NAME,
    SIZES_NAME,
    index_name,
    scenes_name,
)
from mimic_wds.storage.places import CHUNK, Changed, Patience, Stop, check_name, read_manifest_at

if TYPE_CHECKING:  # obstore has these for type checkers only
    from obstore import GetOptions, PutMode, UpdateVersion

Store: TypeAlias = S3Store | GCSStore | AzureStore | HTTPStore

#: S3 takes at most 10,000 parts (Amazon S3 user guide, "multipart upload limits").
MAX_PARTS = 10_000

#: Parts of one file on their way at once; files are sent side by side as well.
PARTS_AT_ONCE = 2

#: Seconds that sending one request may take: a part of CHUNK bytes at 70 kB/s.
SEND_S = 120

#: Requests at once to learn which files a web server has.
ASKING = 8

_STATUS = re.compile(r"status code: (\d{3})")


class RemotePlace:
    """The files below a URL."""

    def __init__(self, url: str, reading: Store, writing: Store):
        """`url` is shown in messages. `reading` gives up on stalls, `writing` must bear with slow uploads."""
        self._url = url
        self._reading, self._writing = reading, writing

    @property
    def url(self) -> str:
        """The address without credentials."""
        return self._url

    def names(self) -> dict[str, int]:
        """File name -> bytes. Raises FileNotFoundError where there is no such bucket."""
        with self._errors(""):
            objects = obstore.list_with_delimiter(self._reading)["objects"]
        files = ((item["path"].rpartition("/")[2], item["size"]) for item in objects)
        return {name: size for name, size in files if name and name[0] != "."}

    def read(self, name: str) -> bytes:
        """A whole file."""
        return b"".join(self.stream(name))

    def read_with_etag(self, name: str) -> tuple[bytes, str]:
        """A whole file and the mark of this version."""
        with self._errors(name):
            result = obstore.get(self._reading, check_name(name))
            return bytes(result.bytes()), _mark(result.meta.get("e_tag"), result.meta.get("version"))

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from byte `start` on."""
        return self.read_ranges(name, [(start, length)])[0]

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ranges, each (start, length); those within 1 MB of each other come in one request."""
        wanted = [(start, length) for start, length in ranges if length]
        parts: Iterator[bytes] = iter(())
        try:
            with self._errors(name):
                if wanted:
                    starts, lengths = zip(*wanted, strict=True)
                    got = obstore.get_ranges(self._reading, check_name(name), starts=starts, lengths=lengths)
                    parts = map(bytes, got)
        except _NoRanges:
            whole = self.read(name)
            parts = (whole[start : start + length] for start, length in wanted)
        read = [next(parts) if length else b"" for _, length in ranges]
        for part, (start, length) in zip(read, ranges, strict=True):
            if len(part) != length:
                raise OSError(f"{self._url}/{name}: ends before byte {start + length}")
        return read

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        """A file from byte `start` on; asked for again from where it stopped as long as more of it comes each time.

        Raises Changed when the file was replaced meanwhile.
        """
        at, etag = start, ""
        while True:
            before = at
            try:
                for part, version in self._body(name, at):
                    if etag and version and version != etag:
                        raise Changed(f"{self._url}/{name}: was replaced while it was read")
                    etag = etag or version
                    at += len(part)
                    yield part
                return
            except (FileNotFoundError, PermissionError, Changed):
                raise
            except OSError:
                if at == before:
                    raise

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""
        try:
            with self._errors(name):
                return int(obstore.head(self._reading, check_name(name))["size"])
        except FileNotFoundError:
            return None

    def sha256(self, name: str) -> str:
        """Hash that was kept with the file when it was put, or ""."""
        try:
            return self._facts(name)[1]
        except FileNotFoundError:
            return ""

    def put_file(self, name: str, path: Path, sha256: str, stop: Stop | None = None) -> None:
        """Send a file, in parts if it is large, and see that it arrived. Raises ValueError for another sha256."""
        size, kind = path.stat().st_size, mimetypes.guess_type(name)[0]
        chunks = hashed_chunks(path, sha256, stop)
        whole = size <= CHUNK
        with self._errors(name):
            obstore.put(
                self._writing,
                check_name(name),
                b"".join(chunks) if whole else chunks,
                attributes={"sha256": sha256, "Content-Type": kind or "application/octet-stream"},
                use_multipart=not whole,
                chunk_size=max(CHUNK, -(-size // MAX_PARTS)),
                max_concurrency=PARTS_AT_ONCE,
            )
        arrived, known = self._facts(name)
        if arrived != size or known not in ("", sha256):
            raise OSError(f"{self._url}/{name}: has {arrived} bytes or another hash after {size} bytes were sent")

    def put_bytes(self, name: str, data: bytes, *, if_match: str | None = None, create: bool = False) -> str:
        """Write a whole small file; Changed where the condition does not hold and the file there is another.

        Where an answer was lost, obstore asks again and finds its own file: that is success.
        """
        mode: PutMode = "create" if create else "overwrite" if if_match is None else _unmark(if_match)
        attributes = {"Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream"}
        try:
            with self._errors(name):
                put = obstore.put(
                    self._writing, check_name(name), data, mode=mode, attributes=attributes, use_multipart=False
                )
                return _mark(put["e_tag"], put["version"])
        except Changed:
            there, mark = self.read_with_etag(name)
            if there != data:
                raise
            return mark

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        try:
            with self._errors(name):
                obstore.delete(self._writing, check_name(name))
        except FileNotFoundError:
            pass

    def clean(self) -> None:
        """Nothing: what is left of killed uploads is not listed; a rule of the bucket can end them after some days."""

    def _body(self, name: str, start: int) -> Iterator[tuple[bytes, str]]:
        """A file from `start` on in one request (and obstore's own retries), each chunk with the file's version."""
        skip = 0
        with self._errors(name):
            try:
                result = obstore.get(self._reading, check_name(name), options=_from(start))
            except NotSupportedError:  # the server knows no ranges
                result, skip = obstore.get(self._reading, check_name(name)), start
            version = result.meta.get("e_tag") or ""
            for chunk in result.stream(min_chunk_size=1):  # as it comes: what has come is not lost with the rest
                part = bytes(chunk)[skip:]
                skip = max(0, skip - len(chunk))
                if part:
                    yield part, version

    def _facts(self, name: str) -> tuple[int, str]:
        """Size of a file and the sha256 kept with it, or ""."""
        with self._errors(name):
            result = obstore.get(self._reading, check_name(name), options={"head": True})
            return result.meta["size"], str(result.attributes.get("sha256", ""))

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """Say errors in our words, with the file's address and without whatever a server's answer may hold."""
        where = f"{self._url}/{name}".rstrip("/")
        try:
            yield
        except (PreconditionError, AlreadyExistsError):
            raise Changed(f"{where}: was changed by somebody else") from None
        except NotSupportedError:
            raise _NoRanges(f"{where}: the server does not give parts of files") from None
        except (PermissionDeniedError, UnauthenticatedError, BaseError, FileNotFoundError) as error:
            raise _in_words(error, where) from None


class WebPlace(RemotePlace):
    """A web server, which has no list of its files: they follow from the manifest."""

    def names(self) -> dict[str, int]:
        """File name -> bytes of the files that a data set may have and this one has; one request each."""
        manifest = read_manifest_at(self)
        expected = [MANIFEST_NAME, CARD_NAME, CROISSANT_NAME, SIZES_NAME, FIGURE_NAME, REPORT_NAME]
        expected += [scenes_name(generation) for generation in range(manifest.generation + 1)]
        for shard in manifest.shards:
            expected += [shard.name, index_name(shard.name)]
        with ThreadPoolExecutor(ASKING) as pool:
            sizes = pool.map(self.size, expected)
            return {name: size for name, size in zip(expected, sizes, strict=True) if size is not None}

    def sha256(self, name: str) -> str:
        """Not known of files on a web server."""
        return ""


class _NoRanges(OSError):
    """The server gives whole files only."""


def open_remote(url: str, *, endpoint: str = "", anonymous: bool = False, patience: Patience) -> RemotePlace:
    """The place at a URL. Raises ValueError for one that cannot be meant, PermissionError without credentials."""
    provider, plain, header = split_url(url)
    options: dict[str, str | bool] = {"skip_signature": True} if anonymous else {}
    if provider == "s3":
        options = s3_options(endpoint, anonymous)
    elif endpoint and provider != "http":
        options["base_url" if provider == "gs" else "endpoint"] = endpoint
    address = str(options.get("endpoint") or options.get("base_url") or plain)
    if address != plain and "@" in address:
        raise ValueError(f"{mask(address)}: the endpoint holds credentials; give them in the environment instead")
    stores = []
    for limits in ({"read_timeout": f"{patience.stall_s}s", "timeout": "1day"}, {"timeout": f"{SEND_S}s"}):
        client: dict[str, object] = {**limits, "allow_http": address.startswith("http://")}
        if header:
            client["default_headers"] = {"Authorization": header}
        stores.append(_store(provider, plain, options, client, patience))
    return (WebPlace if provider == "http" else RemotePlace)(plain, *stores)


def _store(
    provider: str, url: str, options: dict[str, str | bool], client: dict[str, object], patience: Patience
) -> Store:
    """An obstore store. Raises ValueError without the details, which may hold credentials."""
    retry = {"max_retries": patience.retries, "retry_timeout": timedelta(seconds=patience.give_up_s)}
    kinds: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore, "http": HTTPStore}
    try:
        store: Store = kinds[provider].from_url(url, client_options=client, retry_config=retry, **options)
        return store
    except BaseError as error:
        raise ValueError(f"{url}: cannot be opened: {mask(_first_line(error))}") from None


def _in_words(error: Exception, where: str) -> OSError:
    """obstore's error as one of ours: what the server answered, but not its text, which may quote a request."""
    text = str(error)
    found = _STATUS.search(text)
    status = found[1] if found else ""
    if "169.254.169.254" in text or "InstanceCredential" in text:
        return PermissionError(f"{where}: no credentials: neither in the environment nor in a profile nor a role")
    if "NoSuchBucket" in text or "ContainerNotFound" in text:
        return FileNotFoundError(f"{where}: there is no such bucket")
    if isinstance(error, FileNotFoundError) or status == "404":
        return FileNotFoundError(f"{where}: not found (404)")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in ("401", "403"):
        return PermissionError(f"{where}: no permission ({status or 'denied'}); check the credentials and their rights")
    if status == "409":
        return Changed(f"{where}: is being changed by somebody else (409)")
    return OSError(f"{where}: {f'the server answered {status}, also when asked again' if status else _reason(text)}")


def _reason(text: str) -> str:
    """Why no answer came, from the depths of obstore's error."""
    low = text.lower()
    for sign, reason in (
        ("timedout", "no answer in time"),
        ("timed out", "no answer in time"),
        ("connection refused", "connection refused"),
        ("dns error", "the server's name is not known"),
        ("certificate", "the server's certificate is not trusted"),
        ("interrupted", "the connection broke, again and again"),
    ):
        if sign in low:
            return reason
    return mask(text.partition("\n")[0].partition("<")[0])[:200]


def _from(start: int) -> "GetOptions | None":
    """Ask for what lies from byte `start` on."""
    return {"range": {"offset": start}} if start else None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _mark(e_tag: str | None, version: str | None) -> str:
    """A version of a file as one text: GCS compares its `version`, the others the etag."""
    return f"{e_tag or ''}\n{version or ''}"


def _unmark(mark: str) -> "UpdateVersion":
    """The two parts of a `_mark`, as obstore takes them."""
    e_tag, _, version = mark.partition("\n")
    known: UpdateVersion = {"e_tag": e_tag} if e_tag else {}
    if version:
        known["version"] = version
    return known
