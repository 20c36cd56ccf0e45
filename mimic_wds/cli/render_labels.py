"""`mimic-shard render-labels`: views of 3D scenes with their depth, normals and classes, to finetune on."""

from pathlib import Path
from typing import Annotated

import tyro

from mimic_wds.cli.console import say
from mimic_wds.cli.import_ import DEFAULT_SHARD_BYTES, run_import
from mimic_wds.importing.labels import RenderedLabels
from mimic_wds.importing.run import Target
from mimic_wds.settings import from_mapping, parse_assignments


def render_labels(
    paths: tyro.conf.Positional[tuple[Path, ...]],
    /,
    out: Path,
    source: str = "mesh",
    views: int = 100,
    size: int = 256,
    workers: int = 0,
    resume: bool = False,
    name: str = "",
    option: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["-o"]), tyro.conf.UseAppendAction] = (),
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> int:
    """Render views of 3D scenes with their depth, normals and, where a scene names its parts, classes.

    Example: mimic-shard render-labels house.glb --out shards/house-labels --views 200

    Args:
        paths: Scene files, or folders of them.
        out: Folder of the new data set; must be empty or new.
        source: Which data set they are of: mesh, hm3d, gibson, matterport or replica.
        views: Of each scene.
        size: Pixels, height and width.
        workers: Processes that render; 0 = one per core.
        resume: Continue an interrupted run in the same folder.
        name: Of the data set; default: the output folder's name.
        option: Other settings, KEY=VALUE, repeatable: maps, hfov_deg, pitch_deg, max_empty, up, scale_m, licence.
        max_shard_bytes: Size that a shard does not pass.

    Returns:
        0 done; 3 when a scene could not be read or nothing was kept.
    """
    options = {**parse_assignments(option, "--option"), "source": source, "views": views}
    chosen = from_mapping(RenderedLabels, {"paths": tuple(map(str, paths)), **options}, "render-labels")
    target = Target(out=out, name=name or out.resolve().name, size=size, kind="images", max_shard_bytes=max_shard_bytes)
    say(f"rendering {target.name!r} into {out}")
    return run_import(chosen, target, workers=workers, resume=resume)
