"""Push to and pull from the Hugging Face Hub.

Whoever reads a data set there finds the old one or the new one, whole: what changes with the manifest is in one commit
with it, made on condition that nobody else has committed since the repository was looked at. Shards of a large data set
go before it in commits of their own, so that a push that was killed goes on; files that nothing describes yet harm
nobody. The sha256 that the client has computed of the very bytes it sent is held against the manifest before each
commit: wrong bytes never become visible.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mimic_wds.storage.hub_place import HubFile, HubPlace, hub_api, hub_errors, open_hub
from mimic_wds.storage.index import read_index
from mimic_wds.storage.layout import MANIFEST_NAME, index_name
from mimic_wds.storage.manifest import Manifest, ShardInfo, read_manifest
from mimic_wds.storage.pulling import pull
from mimic_wds.storage.transfer import (
    WORKERS,
    Current,
    File,
    How,
    Progress,
    Report,
    check_successor,
    read_current,
    report_of,
    side_names,
)

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

#: Files in one commit, as the Hub recommends (its documentation, "repository limitations and recommendations").
COMMIT_FILES = 100


def _quiet(name: str, done: int, total: int) -> None:
    """No progress."""


def pull_hub(
    url: str,
    folder: Path,
    *,
    dry_run: bool = False,
    workers: int = WORKERS,
    replace: bool = False,
    check: bool = False,
    progress: Progress = _quiet,
) -> Report:
    """Copy a data set from the Hub to `folder`, as `pulling.pull` does from any place; raises what that raises."""
    how = How(workers=workers, dry_run=dry_run, replace=replace, check=check, progress=progress)
    return pull(open_hub(url), folder, how)


def push_hub(
    folder: Path,
    url: str,
    *,
    dry_run: bool = False,
    workers: int = WORKERS,
    replace: bool = False,
    progress: Progress = _quiet,
) -> Report:
    """Copy the data set in `folder` to a repository that is there: only what is missing, by the Hub's own hashes.

    Raises ValueError when the data set is damaged or must not go there (`check_successor`), Changed when somebody else
    was quicker, FileNotFoundError without the repository, PermissionError, and OSError when the Hub fails.
    """
    manifest, data = read_manifest(folder), (folder / MANIFEST_NAME).read_bytes()
    place = open_hub(url)
    current = read_current(place, replace) if MANIFEST_NAME in place.files else Current(None)
    check_successor(manifest, current.manifest, place.url, replace)
    files = list(_files(folder, manifest))
    wanted = [file for file in files if not _is_there(folder / file.name, file, place.files.get(file.name))]
    if not replace:
        _check_strangers(place, wanted)
    last = File(MANIFEST_NAME, len(data), hashlib.sha256(data).hexdigest())
    how = How(workers=workers, dry_run=dry_run, progress=progress)
    report = report_of(place.url, files, wanted, last, current.data == data, how)
    if report.files and not dry_run:
        known = {file.name: file for file in [*wanted, last]}
        _commit_all(folder, place, manifest, [known[name] for name in report.files], how)
    return report


def _files(folder: Path, manifest: Manifest) -> Iterator[File]:
    """All files of a local data set but the manifest, shards before their indexes. Raises ValueError for a bad one."""
    for shard in manifest.shards:
        path = folder / shard.name
        size = path.stat().st_size if path.is_file() else None
        if size != shard.bytes:
            found = "is missing" if size is None else f"has {size} bytes, the manifest says {shard.bytes}"
            raise ValueError(f"{path}: {found}; `mimic-shard verify` tells more")
        yield File(shard.name, shard.bytes, shard.sha256)
        yield _checked_index(folder / index_name(shard.name), shard)
    for name in side_names(manifest):
        if (folder / name).is_file():
            yield _hashed(folder / name)


def _checked_index(path: Path, shard: ShardInfo) -> File:
    """The index of a shard. Raises ValueError unless it can be that."""
    index = read_index(path)
    if (len(index), index.tar_bytes) != (shard.samples, shard.bytes):
        raise ValueError(f"{path}: is the index of another tar; `mimic-shard repair` makes it again")
    return _hashed(path)


def _hashed(path: Path) -> File:
    """A small file with the hash that it has."""
    data = path.read_bytes()
    return File(path.name, len(data), hashlib.sha256(data).hexdigest())


def _is_there(path: Path, file: File, there: HubFile | None) -> bool:
    """Whether the Hub has a file with these bytes."""
    if there is None or there.bytes != file.bytes:
        return False
    return there.sha256 == file.sha256 if there.sha256 else there.blob == _blob_id(path)


def _blob_id(path: Path) -> str:
    """What git calls a file's content: the sha1 of "blob SIZE", a zero byte and the content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _check_strangers(place: HubPlace, wanted: Sequence[File]) -> None:
    """Raise ValueError for a shard of other bytes that the manifest there does not know: of another push."""
    for file in wanted:
        if file.name.endswith(".tar") and file.name in place.files:
            raise ValueError(
                f"{place.url}: has another {file.name}, of a push that is not done or was given up; choose another "
                "place, or take its place with --replace"
            )


def _commit_all(folder: Path, place: HubPlace, manifest: Manifest, files: Sequence[File], how: How) -> None:
    """Commit the files in groups, each on top of the one before; the manifest is in the last."""
    parent, done, groups = place.commit, 0, commits(files)
    for number, group in enumerate(groups, start=1):
        part = "" if len(groups) == 1 else f" ({number} of {len(groups)})"
        parent = _commit(folder, place, group, parent, f"{manifest.name}, generation {manifest.generation}{part}", how)
        for file in group:
            done += 1
            how.progress(file.name, done, len(files))


def commits(files: Sequence[File], limit: int = COMMIT_FILES) -> list[list[File]]:
    """The files of each commit: shards and indexes first, all else, the manifest among it, together in the last."""
    first = [file for file in files if file.name.endswith((".tar", ".idx"))]
    rest = [file for file in files if not file.name.endswith((".tar", ".idx"))]
    groups = [first[at : at + limit] for at in range(0, len(first), limit)]
    if groups and len(groups[-1]) + len(rest) <= limit:
        groups[-1] += rest
    elif rest:
        groups.append(rest)
    return groups


def _commit(folder: Path, place: HubPlace, files: Sequence[File], parent: str, title: str, how: How) -> str:
    """Send files and commit them on top of `parent`; returns the new commit.

    Raises ValueError, and nothing is committed, when the bytes sent are not those that are described.
    """
    api, address = hub_api(), place.address
    additions = [_addition(folder / file.name, address.path(file.name)) for file in files]
    with hub_errors(place.url), _no_bars():
        api.preupload_lfs_files(
            address.repo,
            additions,
            repo_type="dataset",
            revision=address.revision,
            num_threads=how.workers,
            gitignore_content="# leaves out nothing",  # a .gitignore there must not
        )
        for file, addition in zip(files, additions, strict=True):
            if addition.upload_info.sha256.hex() != file.sha256:
                raise ValueError(
                    f"{folder / file.name}: has the sha256 {addition.upload_info.sha256.hex()[:16]}..., expected "
                    f"{file.sha256[:16]}...: it is damaged or was changed; `mimic-shard verify` tells more"
                )
        made = api.create_commit(
            address.repo,
            additions,
            commit_message=title,
            repo_type="dataset",
            revision=address.revision,
            parent_commit=parent,
            num_threads=how.workers,
        )
    return made.oid


def _addition(path: Path, target: str) -> "CommitOperationAdd":
    """What is added by a commit: a shard as a file, which is hashed as it is sent; small files as they are now."""
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(target, path if path.suffix == ".tar" else path.read_bytes())


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep huggingface_hub from drawing its progress beside ours."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            enable_progress_bars()
