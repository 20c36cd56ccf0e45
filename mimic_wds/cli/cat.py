"""`mimic-shard cat`: one sample of a data set, as files or on stdout."""

import sys
from pathlib import Path

import msgspec
import tyro

from mimic_wds.cli.console import say
from mimic_wds.cli.looking import may_be_cut
from mimic_wds.storage.browse import open_browser
from mimic_wds.storage.files import atomic_write


def cat(
    data_set: tyro.conf.Positional[str],
    key: tyro.conf.Positional[str],
    /,
    out: Path = Path("."),
    member: str = "",
    endpoint: str = "",
    anonymous: bool = False,
    json: bool = False,
) -> int:
    """Write one sample of a data set to files KEY.0.jpg, ..., KEY.json, or one member of it to stdout.

    Example: mimic-shard cat s3://bucket/clips 1234 --out samples

    Args:
        data_set: Folder of the data set, or s3://, gs://, az://, https:// or hf://datasets/ URL.
        key: Key of the sample, or its number, from 0.
        out: Folder for the files; is made if it is not there.
        member: Write this one to stdout instead, e.g. json.
        endpoint: Address of an S3-compatible service; default: AWS_ENDPOINT_URL, or the provider's own.
        anonymous: Send no credentials, for public buckets.
        json: Print key, number, shard and the files that were written as JSON.

    Returns:
        0
    """
    browser = open_browser(data_set, endpoint=endpoint, anonymous=anonymous)
    known = browser.manifest.members
    if member and member not in known:
        raise ValueError(f"--member: {_a(browser.noun)} has no {member!r}; it has {', '.join(known)}")
    number = int(key) if key.isdecimal() else browser.find(key)
    name, members = browser.read(number)
    if member:
        with may_be_cut():
            sys.stdout.flush()
            sys.stdout.buffer.write(members[member])
        return 0
    out.mkdir(parents=True, exist_ok=True)
    files = {out / f"{name}.{part}": data for part, data in members.items()}
    for path, data in files.items():
        with atomic_write(path) as file:
            file.write(data)
    number_of_shard, place = browser.locate(number)
    shard = browser.manifest.shards[number_of_shard].name
    if json:
        written = {"key": name, "number": number, "shard": shard, "place": place, "files": [str(p) for p in files]}
        print(msgspec.json.encode(written).decode())
    else:
        say(f"{name}: {len(members)} files in {out}  ({shard}[{place}], number {number})")
    return 0


def _a(noun: str) -> str:
    return f"an {noun}" if noun == "image" else f"a {noun}"
