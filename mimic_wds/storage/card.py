"""What a published data set says of itself, all from the manifest: card, composition figure, Croissant, sizes."""

import json
import re
from html import escape
from pathlib import Path
from typing import Any

from mimic_wds.storage.files import atomic_write
from mimic_wds.storage.layout import CARD_NAME, CROISSANT_NAME, FIGURE_NAME, SIZES_NAME
from mimic_wds.storage.manifest import Manifest, read_manifest

#: Upper bounds of the Hub's size categories.
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))

#: Colours that colour-blind people tell apart (Okabe and Ito, 2008), for the sources by turns.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")

#: Croissant 1.0's JSON-LD context: what the short names of the file mean (https://docs.mlcommons.org/croissant).
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{
        name: f"cr:{name}"
        for name in (
            "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet",
            "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet",
            "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField",
            "transform",
        )
    },
}  # fmt: skip


def write_card(folder: Path, *, url: str = "", title: str = "") -> list[Path]:
    """Write README.md, composition.svg, croissant.json and sizes.json of the data set in `folder`; returns their paths.

    `url` is where it is published. Raises ValueError when there is a README.md that was not written here.
    """
    manifest = read_manifest(folder)
    readme = folder / CARD_NAME
    if readme.exists() and _MARK not in readme.read_text("utf-8"):
        raise ValueError(f"{readme}: was written by someone else; move it away to have a card made")
    contents = {
        CARD_NAME: card(manifest, title or manifest.name),
        FIGURE_NAME: figure(manifest),
        CROISSANT_NAME: json.dumps(croissant(manifest, url), indent=1) + "\n",
        SIZES_NAME: json.dumps(sizes(manifest), indent=1) + "\n",
    }
    for name, text in contents.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    return [folder / name for name in contents]


#: Tells a card that was made here.
_MARK = "<!-- written by mimic-shard card from manifest.json; changes are lost when it is written again -->"


def card(manifest: Manifest, title: str) -> str:
    """README.md: the Hub's YAML header, composition, criteria, licences, how to read it."""
    total, num_bytes = manifest.num_samples, sum(shard.bytes for shard in manifest.shards)
    noun = "pairs of views" if manifest.kind == "pairs" else "images"
    header = [
        "---",
        f"pretty_name: {_quoted(title)}",
        "license: other",
        "license_name: per-source",
        "tags: [webdataset, image-pairs, mimic-wds]" if manifest.kind == "pairs" else "tags: [webdataset, mimic-wds]",
        f"size_categories: [{_quoted(size_category(total))}]",
        "configs:",
        "- config_name: default",
        f'  data_files: "{manifest.name}-*.tar"',
        "---",
    ]
    body = [
        _MARK,
        f"# {title}",
        "",
        f"{total:,} {noun} in {len(manifest.shards):,} WebDataset shards, {num_bytes / 1e9:.2f} GB.",
        f"Data set `{manifest.id}`, generation {manifest.generation}.",
        "",
        f"![Samples per source]({FIGURE_NAME})",
        "",
        "## Composition",
        "",
        "| source | kept | share | candidates | scenes | licence |",
        "|---|---:|---:|---:|---:|---|",
        *(_source_row(manifest, source, total) for source in sorted(manifest.kept)),
        "",
        "The licences are those of the material that the samples were made from, and hold for the samples, too.",
        "",
        "## How the samples were chosen",
        "",
        *(f"- {name}: `{value}`" for name, value in manifest.criteria.items()),
        f"- made with {', '.join(f'{name} {version}' for name, version in manifest.versions.items())}",
        "",
        "## Reading it",
        "",
        "```python",
        "import webdataset as wds",
        "",
        f'for sample in wds.WebDataset("{_brace(manifest)}", shardshuffle=False).decode("rgb"):',
        f"    print(sample['__key__'], {', '.join(repr(name) for name in manifest.members)})",
        "```",
        "",
        "Or with `mimic_wds.loading`, in an exact and resumable order. The format: docs/shard-format.md of mimic-wds.",
    ]
    return "\n".join([*header, *body]) + "\n"


def _source_row(manifest: Manifest, source: str, total: int) -> str:
    kept = manifest.kept[source]
    share = f"{kept / total:.1%}" if total else "-"
    licence = manifest.licences.get(source) or "not stated"
    cells = (
        source,
        f"{kept:,}",
        share,
        f"{manifest.candidates.get(source, 0):,}",
        f"{manifest.scenes.get(source, 0):,}",
    )
    return f"| {' | '.join(map(_cell, cells))} | {_cell(licence)} |"


def _cell(text: str) -> str:
    """Text that stays one cell of a table, whatever it holds."""
    return escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def _quoted(text: str) -> str:
    """A YAML string: JSON's are."""
    return json.dumps(text, ensure_ascii=False)


def _brace(manifest: Manifest) -> str:
    """All shards in one WebDataset url."""
    if len(manifest.shards) < 2:
        return f"{manifest.name}-000000.tar"
    first, last = (
        shard.name.removesuffix(".tar").rpartition("-")[2] for shard in (manifest.shards[0], manifest.shards[-1])
    )
    return f"{manifest.name}-{{{first}..{last}}}.tar"


def size_category(samples: int) -> str:
    """The Hub's word for so many samples."""
    return next((name for bound, name in _SIZES if samples < bound), "n>10M")


def figure(manifest: Manifest) -> str:
    """A bar per source as SVG (figure 2 of MIMIC, arXiv 2306.15128, as bars): kept samples and their share."""
    total = max(1, manifest.num_samples)
    rows = sorted(manifest.kept.items(), key=lambda item: (-item[1], item[0]))
    height = 26 * len(rows) + 10
    largest = max((kept for _, kept in rows), default=0) or 1
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{height}" viewBox="0 0 640 {height}" role="img" '
        f'font-family="sans-serif" font-size="13"><title>Samples per source of {escape(manifest.name)}</title>'
    ]
    for number, (source, kept) in enumerate(rows):
        y = 26 * number + 8
        lines.append(
            f'<text x="130" y="{y + 13}" text-anchor="end">{escape(source)}</text>'
            f'<rect x="138" y="{y}" width="{max(1, round(330 * kept / largest))}" height="18" '
            f'fill="{_COLOURS[number % len(_COLOURS)]}"/>'
            f'<text x="{146 + max(1, round(330 * kept / largest))}" y="{y + 13}">{kept:,} ({kept / total:.1%})</text>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def sizes(manifest: Manifest) -> dict[str, int]:
    """Samples per shard, as open_clip and DataComp read them."""
    return {shard.name: shard.samples for shard in manifest.shards}


def croissant(manifest: Manifest, url: str) -> dict[str, Any]:
    """The data set as Croissant 1.0 (JSON-LD): shards with their sha256, and the fields of a sample."""
    shards = [
        {
            "@type": "cr:FileObject",
            "@id": shard.name,
            "name": shard.name,
            "contentUrl": f"{url.rstrip('/')}/{shard.name}" if url else shard.name,
            "contentSize": f"{shard.bytes} B",
            "encodingFormat": "application/x-tar",
            "sha256": shard.sha256,
        }
        for shard in manifest.shards
    ]
    members = [_member_set(name, [shard.name for shard in manifest.shards]) for name in manifest.members]
    licences = sorted({note for note in manifest.licences.values() if note})
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": manifest.name,
        "description": f"{manifest.num_samples} {manifest.kind} in WebDataset shards, made with mimic-wds.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "url": url or f"https://example.invalid/{manifest.name}",
        "license": licences or ["not stated"],
        "version": f"1.{manifest.generation}.0",
        "distribution": [*shards, *members],
        "recordSet": [_records(member) for member in manifest.members],
    }


def _member_set(member: str, shards: list[str]) -> dict[str, Any]:
    """All members of one kind, in all shards."""
    kinds = {"jpg": "image/jpeg", "png": "image/png", "json": "application/json", "npy": "application/octet-stream"}
    return {
        "@type": "cr:FileSet",
        "@id": f"all-{member}",
        "name": f"all-{member}",
        "containedIn": [{"@id": name} for name in shards],
        "encodingFormat": kinds[member.rpartition(".")[2]],
        "includes": f"*.{member}",
    }


def _records(member: str) -> dict[str, Any]:
    """One member of all samples: its key, by which the members of a sample belong together, and its content."""
    source = {"fileSet": {"@id": f"all-{member}"}}
    key: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{member}/key",
        "name": "key",
        "dataType": "sc:Text",
        "source": {
            **source,
            "extract": {"fileProperty": "filename"},
            "transform": {"regex": f"^(.*)\\.{re.escape(member)}$"},
        },
    }
    content = {
        "@type": "cr:Field",
        "@id": f"{member}/content",
        "name": "content",
        "dataType": "sc:ImageObject" if member.endswith(("jpg", "png")) else "sc:Text",
        "source": {**source, "extract": {"fileProperty": "content"}},
    }
    return {"@type": "cr:RecordSet", "@id": member, "name": member, "field": [key, content]}
