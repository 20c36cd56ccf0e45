"""`mimic-shard ls`: the keys of a data set, all or some."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice

import msgspec
import tyro

from mimic_wds.cli.looking import may_be_cut
from mimic_wds.storage.browse import Browser, open_browser, source_part
from mimic_wds.storage.expression import Expression, parse
from mimic_wds.storage.facts import facts_type, fields_of


def ls(
    data_set: tyro.conf.Positional[str],
    /,
    source: str = "",
    scene: str = "",
    where: str = "",
    shard: str = "",
    limit: int = 0,
    endpoint: str = "",
    anonymous: bool = False,
    json: bool = False,
) -> int:
    """List the keys of a data set, one a line, in the order of its samples; pictures are not read.

    Example: mimic-shard ls s3://bucket/clips --where "overlap < 0.6" --limit 20

    Args:
        data_set: Folder of the data set, or s3://, gs://, az://, https:// or hf://datasets/ URL.
        source: Only samples of this source.
        scene: Only samples of scenes like this; * stands for any characters, ? for one.
        where: Only samples for which this holds, e.g. "overlap > 0.6 and num_inliers >= 50".
        shard: Only samples in the shard of this name.
        limit: At most so many; 0 = all.
        endpoint: Address of an S3-compatible service; default: AWS_ENDPOINT_URL, or the provider's own.
        anonymous: Send no credentials, for public buckets.
        json: Print a JSON object a line: key, shard, number, source, scene, and overlap of pairs.

    Returns:
        0
    """
    if limit < 0:
        raise ValueError(f"--limit must be 0 (all) or more, got {limit}")
    browser = open_browser(data_set, endpoint=endpoint, anonymous=anonymous)
    shards, expression = _shards(browser, shard, source), _expression(browser, where)
    if scene or expression or json:
        lines = _described(browser, shards, source, scene, expression, json)
    else:
        lines = _plain(browser, shards, source)
    with may_be_cut():
        for line in islice(lines, limit or None):
            print(line)
    return 0


def _shards(browser: Browser, name: str, source: str) -> list[int]:
    """The shards to look into. Raises ValueError for a shard or source that is not in the data set."""
    infos = browser.manifest.shards
    if name and name not in {info.name for info in infos}:
        raise ValueError(f"--shard: the data set has no {name!r}; it has {len(infos)} shard(s), see `mimic-shard info`")
    sources = {known for info in infos for known in info.sources}
    if source and source not in sources:
        raise ValueError(f"--source: nothing is of {source!r}; there are {', '.join(sorted(sources))}")
    return [
        number
        for number, info in enumerate(infos)
        if (not name or info.name == name) and (not source or source in info.sources)
    ]


def _expression(browser: Browser, text: str) -> Expression | None:
    return parse(text, fields_of(browser.manifest)) if text else None


def _plain(browser: Browser, shards: list[int], source: str) -> Iterator[str]:
    """Keys, for which headers are enough."""
    part = source_part(source) if source else ""
    for shard in shards:
        yield from (key for key in browser.keys(shard) if not part or key.partition("_")[0] == part)


def _described(
    browser: Browser, shards: list[int], source: str, scene: str, expression: Expression | None, json: bool
) -> Iterator[str]:
    """Keys or JSON lines of what passes the conditions, for which every KEY.json is read."""
    decoder = msgspec.json.Decoder(facts_type(browser.manifest, everything=expression is not None))
    for shard in shards:
        name = browser.manifest.shards[shard].name
        for number, key, data in browser.facts(shard):
            try:
                facts = decoder.decode(data)
            except (msgspec.MsgspecError, RecursionError) as error:
                raise ValueError(
                    f"{browser.place.url}/{name}: {key}.json: {error}; `mimic-shard verify` tells more"
                ) from None
            if (source and facts.source != source) or (scene and not fnmatchcase(facts.scene, scene)):
                continue
            if expression is not None and not expression.holds(key, facts):
                continue
            line = {"key": key, "shard": name, "number": number, "source": facts.source, "scene": facts.scene}
            if browser.manifest.kind == "pairs":
                line["overlap"] = facts.overlap
            yield msgspec.json.encode(line).decode() if json else key
