"""A data set in a repository of the Hugging Face Hub, read at one commit: what changes there meanwhile is not seen.

The list of files comes through huggingface_hub (extra `hub`), the bytes by ranged GETs like those of any web server.
The token is found where huggingface_hub finds it (HF_TOKEN, `hf auth login`), HF_ENDPOINT is respected.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote

from obstore.store import HTTPStore

from mimic_wds.storage.addresses import mask
from mimic_wds.storage.places import Changed, Patience
from mimic_wds.storage.remote_place import RemotePlace

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEME = "hf://"

#: hf://datasets/OWNER/NAME[@REVISION][/PREFIX], as huggingface_hub's file system writes it; pull requests and other
#: refs are the only revisions that may have slashes as they are.
_URL = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/+(.*))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubAddress:
    """Where a data set is on the Hub."""

    repo: str  #: "owner/name"
    revision: str  #: branch, tag or commit
    prefix: str  #: folder in the repository, "" = its root

    @property
    def url(self) -> str:
        """The address as it is written."""
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{SCHEME}datasets/{self.repo}{revision}{f'/{self.prefix}' if self.prefix else ''}"

    def path(self, name: str) -> str:
        """The path in the repository of a file of the data set."""
        return f"{self.prefix}/{name}" if self.prefix else name


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the Hub lists it."""

    bytes: int
    sha256: str  #: of its content, where the Hub stores it as a large file; else ""
    blob: str  #: id of its git object, which is that of its content for others


def parse_address(url: str) -> HubAddress:
    """The address in a URL. Raises ValueError for one that cannot be meant."""
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(f"{mask(url)}: expected hf://datasets/OWNER/NAME, then perhaps @REVISION and /FOLDER")
    prefix = (found[3] or "").strip("/")
    if prefix and not set(prefix.split("/")).isdisjoint(("", ".", "..")):
        raise ValueError(f"{url}: {prefix!r} is no folder in a repository")
    return HubAddress(found[1], unquote(found[2] or "main"), prefix)


class HubPlace(RemotePlace):
    """The files of a data set in a repository at one commit."""

    def __init__(self, address: HubAddress, commit: str, files: Mapping[str, HubFile], store: HTTPStore):
        super().__init__(address.url, store, store)
        self.address, self.commit, self.files = address, commit, files

    def names(self) -> dict[str, int]:
        """File name -> bytes."""
        return {name: file.bytes for name, file in self.files.items() if name[0] != "."}

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""
        return self.files[name].bytes if name in self.files else None

    def sha256(self, name: str) -> str:
        """Hash of a file that the Hub knows, or ""."""
        return self.files[name].sha256 if name in self.files else ""


def open_hub(url: str, patience: Patience | None = None) -> HubPlace:
    """The place at an hf:// URL, at the newest commit of its revision.

    Raises ValueError for a bad URL or without huggingface_hub, FileNotFoundError where there is no such repository or
    revision, PermissionError without the right to it, OSError when the Hub fails.
    """
    address, api = parse_address(url), hub_api()
    with hub_errors(address.url):
        commit = api.dataset_info(address.repo, revision=address.revision).sha
    if commit is None:
        raise ValueError(f"{address.url}: the repository has no commit")
    return HubPlace(address, commit, _files(api, address, commit), _store(api, address, commit, patience or Patience()))


def hub_api() -> "HfApi":
    """The client of the Hub. Raises ValueError that says how to get it."""
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError("hf:// needs huggingface_hub: pip install 'mimic-wds[hub]'") from None
    return huggingface_hub.HfApi(library_name="mimic-wds")


def _files(api: "HfApi", address: HubAddress, commit: str) -> dict[str, HubFile]:
    """File name -> what the Hub says of it; none if the folder is not there."""
    from huggingface_hub import RepoFile
    from huggingface_hub.errors import EntryNotFoundError

    with hub_errors(address.url):
        try:
            folder = address.prefix or None
            tree = list(api.list_repo_tree(address.repo, folder, revision=commit, repo_type="dataset"))
        except EntryNotFoundError:
            return {}
    return {
        entry.path.rpartition("/")[2]: HubFile(entry.size, entry.lfs.sha256 if entry.lfs else "", entry.blob_id)
        for entry in tree
        if isinstance(entry, RepoFile)
    }


def _store(api: "HfApi", address: HubAddress, commit: str, patience: Patience) -> HTTPStore:
    """Where the files of a commit are fetched; holds the token, which is not sent on to other servers."""
    from huggingface_hub import get_token

    folder = quote(address.path("").rstrip("/"))
    url = f"{api.endpoint}/datasets/{address.repo}/resolve/{commit}/{folder}".rstrip("/")
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return HTTPStore.from_url(
        url,
        client_options={
            "read_timeout": f"{patience.stall_s}s",
            "timeout": "1day",
            "allow_http": url.startswith("http://"),
            "default_headers": headers,
        },
        retry_config={"max_retries": patience.retries, "retry_timeout": timedelta(seconds=patience.give_up_s)},
    )


@contextmanager
def hub_errors(where: str) -> Iterator[None]:
    """Say what huggingface_hub raises in our words, with the address and without what may hold a secret."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    transport = cast(type[Exception], HfHubHTTPError.__mro__[1])  # what is raised where no answer came, too
    try:
        yield
    except (EntryNotFoundError, InterruptedError):
        raise
    except HFValidationError as error:
        raise ValueError(f"{where}: {error}") from None
    except RuntimeError as error:  # around the error of an upload's thread
        if not isinstance(error.__cause__, transport | OSError):
            raise
        raise _in_words(error.__cause__, where) from None
    except (transport, OSError) as error:
        raise _in_words(error, where) from None


def _in_words(error: Exception, where: str) -> OSError:
    """An error of huggingface_hub as one of ours."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", None)
    said = mask(str(getattr(error, "server_message", "") or ""))[:200]
    if isinstance(error, GatedRepoError) or status == 403:
        return PermissionError(f"{where}: no permission ({status}); {said or 'the token may not do this'}")
    if isinstance(error, RevisionNotFoundError):
        return FileNotFoundError(f"{where}: the repository has no such branch, tag or commit")
    if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
        return FileNotFoundError(
            f"{where}: there is no such repository, or it is private: make it with `hf repos create OWNER/NAME --type "
            "dataset`, or log in with `hf auth login` or HF_TOKEN"
        )
    if status in (409, 412):
        return Changed(f"{where}: somebody else has changed the repository meanwhile; run the same command again")
    if status is not None:
        return OSError(f"{where}: the Hub answered {status}{f': {said}' if said else ''}")
    return OSError(f"{where}: {mask(str(error)).partition(chr(10))[0][:200] or type(error).__name__}")
