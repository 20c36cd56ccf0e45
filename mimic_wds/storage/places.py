"""Places where a data set lies: a local folder, a bucket (S3 and compatible, GCS, Azure), a web server (read only).

A place holds the files of one data set under their names; there are no folders inside. All methods may be called from
any thread. What goes wrong is said in the same words everywhere: FileNotFoundError naming the file's address,
PermissionError without the right to it, `Changed` where a conditional write lost, OSError for other trouble after
retries, ValueError for what cannot be meant. No message holds a credential.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mimic_wds.storage.layout import MANIFEST_NAME
from mimic_wds.storage.manifest import Manifest, decode_manifest

#: Bytes that are read, hashed and sent at a time.
CHUNK = 8 * 2**20


class Changed(OSError):
    """A conditional write was refused: the file is not, or no longer, the one that was expected."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to bear with a server before it is trouble."""

    stall_s: float = 15.0  #: without a byte of an answer; then the request is made again, a body from where it stopped
    retries: int = 8  #: of one request, with waits that double from 0.1 s up to 15 s
    give_up_s: float = 120.0  #: after the first try of a request nothing is tried again


class Place(Protocol):
    """Where the files of one data set can be read."""

    @property
    def url(self) -> str:
        """The address, for people: without credentials."""

    def names(self) -> dict[str, int]:
        """File name -> bytes, of all files that lie here; not of sub-folders, not hidden ones."""

    def read(self, name: str) -> bytes:
        """A whole file."""

    def read_with_etag(self, name: str) -> tuple[bytes, str]:
        """A whole file and the mark of this version of it, for `put_bytes(..., if_match=...)`."""

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from byte `start` on. Raises OSError where the file ends before."""

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ranges, each (start, length), in as few requests as is quick."""

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        """A file from byte `start` on, in chunks as they come; broken connections are resumed."""

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""

    def sha256(self, name: str) -> str:
        """Hash (hex) of a file as far as it is known without fetching it, else ""."""


class WritablePlace(Place, Protocol):
    """A place that files can be put to."""

    def put_file(self, name: str, path: Path, sha256: str, stop: "Stop | None" = None) -> None:
        """Copy a local file here, visible only when whole; in parts if it is large, the hash kept with it.

        Raises ValueError, and nothing becomes visible, when the bytes read have another sha256.
        """

    def put_bytes(self, name: str, data: bytes, *, if_match: str | None = None, create: bool = False) -> str:
        """Write a whole file, visible at once; returns its etag.

        With `if_match` only over the version of this etag, with `create` only where there is none: raises Changed,
        unless the file that is there has these very bytes.
        """

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""

    def clean(self) -> None:
        """Remove what killed writers left here, as far as that can be known."""


class Stop(Protocol):
    """Asked between chunks whether to go on (threading.Event is one)."""

    def is_set(self) -> bool:
        """True when the work should end now."""


def open_place(
    where: str | Path, *, endpoint: str = "", anonymous: bool = False, patience: Patience = Patience()
) -> Place:
    """The place at a path or URL: a folder, s3://bucket/path, gs://..., az://container/path, http(s)://...

    Credentials come from where each provider's own tools take them (environment, AWS profile files, machine roles); of
    Azure the account too (AZURE_STORAGE_ACCOUNT_NAME), unless the address is abfss://container@account.dfs....
    `endpoint` is the address of an S3-compatible (or Azure, GCS) service, default from the environment, as in
    AWS_ENDPOINT_URL; `anonymous` sends no credentials. Nothing is contacted yet.
    Raises ValueError for a folder that is not there or an address that cannot be meant.
    """
    from mimic_wds.storage.folder_place import FolderPlace
    from mimic_wds.storage.remote_place import open_remote

    if isinstance(where, Path) or "://" not in where:
        if not Path(where).is_dir():
            raise ValueError(f"{where}: no such folder")
        return FolderPlace(Path(where))
    if where.startswith("file://"):
        return open_place(Path(where.removeprefix("file://")))
    if where.startswith("hf://"):
        from mimic_wds.storage.hub_place import open_hub

        return open_hub(where, patience)
    return open_remote(where, endpoint=endpoint, anonymous=anonymous, patience=patience)


def open_target(
    where: str | Path, *, endpoint: str = "", patience: Patience = Patience(), make: bool = True
) -> WritablePlace:
    """Like `open_place`, to write: a folder is made if missing (with `make`); a web server is refused (ValueError)."""
    from mimic_wds.storage.folder_place import FolderPlace
    from mimic_wds.storage.remote_place import open_remote

    text = str(where)
    if isinstance(where, Path) or "://" not in text or text.startswith("file://"):
        folder = Path(text.removeprefix("file://"))
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder}: is a file; expected a folder")
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        return FolderPlace(folder)
    if text.startswith(("http://", "https://")):
        raise ValueError("a web server can only be read; push to s3://, gs://, az:// or a folder")
    return open_remote(text, endpoint=endpoint, patience=patience)


def read_manifest_at(place: Place) -> Manifest:
    """The manifest of a place, as `manifest.read_manifest` reads that of a folder. Raises ValueError, OSError."""
    try:
        data = place.read(MANIFEST_NAME)
    except FileNotFoundError:
        raise ValueError(f"{place.url}: no {MANIFEST_NAME} here: not a data set, or not all of it is there") from None
    return decode_manifest(data, f"{place.url}/{MANIFEST_NAME}")


def check_name(name: str) -> str:
    """`name` if it is that of a file in a data set's folder; no path leads elsewhere. Raises ValueError."""
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a file in a data set's folder")
    return name
