"""`mimic-shard explain`: what a build does with one pair, step by step, and why it keeps or drops it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import tyro
from markupsafe import Markup

from mimic_wds.cli.console import say
from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.recipe import make_criteria
from mimic_wds.curation.scene import pack
from mimic_wds.curation.selection import Candidate
from mimic_wds.curation.trace import Trace, Votes, trace
from mimic_wds.looking import explain_page as page
from mimic_wds.looking.explain_page import Explained, Step
from mimic_wds.looking.shown import shown
from mimic_wds.pairs import DropReason, Fault, Overlap, Scene, View, invert_correspondences
from mimic_wds.settings import parse_assignments
from mimic_wds.sources.images import read_view
from mimic_wds.sources.video import read_at
from mimic_wds.storage.files import atomic_write

#: What a drop reason means, and what one can change. Braces are filled in with the criteria.
REASONS: dict[DropReason, tuple[str, str]] = {
    DropReason.VETOED: ("The image filter refused one of the views.", "The filter is {image_filter}."),
    DropReason.LOW_TEXTURE: (
        "One of the views is blurred or bare: its Laplacian variance is below min_texture = {min_texture}.",
        "Lower it with -c min_texture=...",
    ),
    DropReason.NO_KEYPOINTS: (
        "SIFT finds no keypoint in one of the views.",
        "The view is bare, black or out of focus; no setting helps.",
    ),
    DropReason.TOO_FEW_MATCHES: (
        "Fewer than min_matches = {min_matches} keypoints look alike in both views.",
        "The views may show different things, or the same from too far apart: take frames that are closer in time or "
        "place (-o every_s=...). Repeated patterns and bare walls match badly, too.",
    ),
    DropReason.NO_HOMOGRAPHY: ("No homography agrees with the matches.", "Matches contradict each other."),
    DropReason.BAD_HOMOGRAPHY: (
        "The homography cannot be inverted.",
        "The matches lie on a line, or in one place: too little of the views is alike.",
    ),
    DropReason.TOO_FEW_INLIERS: (
        "The homography agrees with too few of the matches (min_inliers = {min_inliers}, min_inlier_ratio = "
        "{min_inlier_ratio}).",
        "Lower these with -c, or raise ransac_px (now {ransac_px}).",
    ),
    DropReason.IMPLAUSIBLE_WARP: (
        "The homography folds a frame over, or scales it by more than max_scale = {max_scale}.",
        "Its matches are wrong or too close to each other; raise -c max_scale=..., or leave it out.",
    ),
    DropReason.ZOOM: ("One view lies wholly within the other.", "Leave out -c drop_zooms=true to keep such pairs."),
    DropReason.OVERLAP_TOO_SMALL: (
        "The views share too little: the overlap must be above min_overlap = {min_overlap}.",
        "Take frames that are closer in time or place, or lower -c min_overlap=...",
    ),
    DropReason.OVERLAP_TOO_LARGE: (
        "The views are too much alike: the overlap must be below max_overlap = {max_overlap}.",
        "Take frames that are farther apart, or raise -c max_overlap=...",
    ),
}


def explain(
    pictures: tyro.conf.Positional[tuple[str, ...]],
    /,
    out: Path = Path("explain.html"),
    preset: str = "default",
    criterion: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["-c"]), tyro.conf.UseAppendAction] = (),
    json: bool = False,
) -> int:
    """Say why a pair of pictures, or of moments of a video, is kept or dropped, and show it on a page.

    Example: mimic-shard explain walk.mp4 12.0 13.5

    Args:
        pictures: IMAGE0 IMAGE1, or VIDEO T0 T1 with times in seconds from the first frame.
        out: The page to write (.html).
        preset: As of build: "default" (exact votes) or "paper" (100 sampled points per patch).
        criterion: Threshold to change as of build, KEY=VALUE, repeatable, e.g. min_overlap=0.4.
        json: Print what was found as JSON.

    Returns:
        0, whether the pair is kept or dropped.
    """
    if out.suffix.lower() not in (".html", ".htm") or not out.parent.is_dir():
        raise ValueError(f"{out}: expected the name of a page ending in .html, in a folder that is there")
    criteria = make_criteria(preset, parse_assignments(criterion, "--criterion"), "explain")
    scene, views = read(pictures)
    found = trace(scene, views, criteria)
    explained = told(scene, found, criteria, (views[0].frame, views[1].frame))
    with atomic_write(out) as file:
        file.write(page.explain_page(explained).encode())
    if json:
        print(as_json(found, criteria))
        return 0
    for number, step in enumerate(explained.steps, 1):
        say(f"{number}. {step.title}: {step.told}")
    say(f"{'kept' if explained.kept else f'dropped: {explained.verdict}'}. {explained.why} {explained.advice}".rstrip())
    say(f"{out}: the same with pictures")
    return 0


def read(words: tuple[str, ...]) -> tuple[Scene, list[View]]:
    """The two views that the command line names. Raises ValueError when it does not, or one cannot be read."""
    if len(words) == 2:
        paths = [Path(word) for word in words]
        scene = Scene(source="images", name=paths[0].resolve().parent.name, path=str(paths[0].parent))
        found = [read_view(path, path.name) for path in paths]
    elif len(words) == 3:
        first, second = _seconds(words[1]), _seconds(words[2])
        scene = Scene(source="video", name=Path(words[0]).name, path=words[0])
        ordered = sorted([first, second])
        found = list(read_at(words[0], ordered, [f"{Path(words[0]).name} at {time:g} s" for time in ordered]))
        found = found if first <= second else found[::-1]
        if len(found) < 2:
            raise ValueError(f"{words[0]}: has one frame for both times; give times that are farther apart")
    else:
        raise ValueError(f"give two images, or a video and two times in seconds; got {len(words)} words")
    views = [view for view in found if isinstance(view, View)]
    if faults := [view for view in found if isinstance(view, Fault)]:
        raise ValueError(f"{faults[0].where}: cannot be read ({faults[0].reason})")
    return scene, views


def told(scene: Scene, found: Trace, criteria: Criteria, names: tuple[str, str]) -> Explained:
    """Everything that the page says."""
    outcome, measured = found.outcome, measured_of(found)
    sample = None
    if measured is not None:
        sample = shown(pack(scene, Candidate(found.view0, found.view1, measured), measured, criteria))
    if isinstance(outcome, Overlap):
        why = (
            f"It overlaps by {outcome.ratio:.3f}, between {criteria.min_overlap} and {criteria.max_overlap}, and "
            "passes all checks of a pair."
        )
        advice = "A build may still leave it out: it tries only some pairs of a scene, and one pair only once."
        return Explained(
            names=names, kept=True, verdict="kept", why=why, advice=advice, steps=list(steps(found, criteria)),
            sample=sample,
        )  # fmt: skip
    why, advice = (text.format(**vars_of(criteria)) for text in REASONS[outcome])
    return Explained(
        names=names, kept=False, verdict=outcome.value, why=why, advice=advice, steps=list(steps(found, criteria)),
        sample=sample,
    )  # fmt: skip


def measured_of(found: Trace) -> Overlap | None:
    """The overlap that was measured, whatever the criteria made of it."""
    if found.H_0to1 is None or found.inliers is None or not found.forward or not found.backward:
        return None
    smaller = found.forward.ratio < found.backward.ratio
    return Overlap(
        ratio=min(found.forward.ratio, found.backward.ratio),
        corr_0to1=found.forward.corr if smaller else invert_correspondences(found.backward.corr),
        H_0to1=found.H_0to1,
        num_matches=len(found.inliers),
        num_inliers=int(found.inliers.sum()),
    )


def steps(found: Trace, criteria: Criteria) -> Iterator[Step]:
    """The steps as far as the pair came."""
    dropped = found.outcome if isinstance(found.outcome, DropReason) else None
    one, two = found.view0, found.view1
    if one.unusable or two.unusable:
        which = " and ".join(f"view {n}" for n, view in enumerate((one, two)) if view.unusable)
        yield Step(title="Views", told=f"{which}: {dropped}", failed=True)
        return
    width, side = criteria.size, f"{criteria.size} x {criteria.size} pixels"

    def figure(marks: Markup, told: str) -> Markup:
        return page.side_by_side(one.image, two.image, marks, told)

    points0, points1 = one.features.points, two.features.points
    yield Step(
        title="Keypoints",
        told=f"brought to {side}; SIFT finds {len(points0):,} keypoints in view 0 and {len(points1):,} in view 1",
        figure=figure(page.keypoint_marks(points0, points1, width), "both views with their keypoints"),
        caption="A ring around each keypoint.",
        failed=dropped is DropReason.NO_KEYPOINTS,
    )
    if found.matches is None:
        return
    pairs0, pairs1 = points0[found.matches[:, 0]], points1[found.matches[:, 1]]
    yield Step(
        title="Matches",
        told=f"{len(pairs0)} keypoints of view 0 have a counterpart that is clearly the best (ratio below "
        f"{criteria.lowe_ratio}); {criteria.min_matches} are needed",
        figure=figure(page.match_lines(pairs0, pairs1, width), "lines from keypoints to their matches"),
        caption="A line for each match.",
        failed=dropped is DropReason.TOO_FEW_MATCHES,
    )
    if found.inliers is None or found.H_0to1 is None:
        if dropped is DropReason.NO_HOMOGRAPHY:
            yield Step(title="Homography", told="RANSAC finds none", failed=True)
        return
    yield Step(
        title="Homography",
        told=f"it takes {int(found.inliers.sum())} of the {len(pairs0)} matches to within {criteria.ransac_px} pixels",
        figure=figure(page.match_lines(pairs0, pairs1, width, found.inliers), "inliers, and other matches dashed"),
        caption="Blue: matches that the homography agrees with (inliers). Orange, dashed: the others.",
        failed=dropped in (DropReason.BAD_HOMOGRAPHY, DropReason.TOO_FEW_INLIERS, DropReason.IMPLAUSIBLE_WARP),
    )
    if not found.forward or not found.backward:
        return
    yield Step(
        title="Frames",
        told="where the frame of each view lies in the other",
        figure=figure(page.frame_marks(found.H_0to1, (width, width)), "the frame of each view in the other"),
        caption="In view 0 the frame of view 1, in view 1 that of view 0.",
        failed=dropped is DropReason.ZOOM,
    )
    yield votes_step(found.forward, found.backward, criteria, dropped, figure)


def votes_step(forward: Votes, backward: Votes, criteria: Criteria, dropped: DropReason | None, figure: Any) -> Step:
    """Which patches have a place in the other view, both ways, and the number that counts."""
    grid, smaller = criteria.grid, min(forward.ratio, backward.ratio)
    counts = [
        f"{name}: {int((votes.corr >= 0).sum())} of {grid.num_patches} patches have a place of their own "
        f"({votes.ratio:.3f}), {votes.num_out} leave the view, {votes.num_taken} come second"
        for name, votes in (("view 0 in view 1", forward), ("view 1 in view 0", backward))
    ]
    marks = Markup("").join(
        page.patch_marks(votes.corr, votes.winners == grid.num_patches, grid.patch_size, grid.cols, shift)
        for votes, shift in ((forward, 0), (backward, criteria.size + page.GAP))
    )
    return Step(
        title="Votes of the patches",
        told=f"{'; '.join(counts)}. The smaller counts: the overlap is {smaller:.3f}, wanted is more than "
        f"{criteria.min_overlap} and less than {criteria.max_overlap}",
        figure=figure(marks, "patches of each view by what becomes of them in the other"),
        caption="What becomes of each patch in the other view. Blue: it has a place of its own. Dark: it is outside. "
        "Purple: another patch has the place already.",
        failed=dropped in (DropReason.OVERLAP_TOO_SMALL, DropReason.OVERLAP_TOO_LARGE),
    )


def as_json(found: Trace, criteria: Criteria) -> str:
    """What was found, for machines; null where the pair did not come so far."""
    measured = measured_of(found)
    values: dict[str, Any] = {
        "verdict": "kept" if isinstance(found.outcome, Overlap) else found.outcome.value,
        "keypoints": [len(found.view0.features), len(found.view1.features)],
        "matches": None if found.matches is None else len(found.matches),
        "inliers": None if found.inliers is None else int(found.inliers.sum()),
        "overlap_0to1": found.forward.ratio if found.forward else None,
        "overlap_1to0": found.backward.ratio if found.backward else None,
        "overlap": measured.ratio if measured else None,
        "homography": None if found.H_0to1 is None else found.H_0to1.ravel().tolist(),
        "criteria": vars_of(criteria),
    }
    return json.dumps(values)


def vars_of(criteria: Criteria) -> dict[str, Any]:
    """The criteria by name."""
    return {name: getattr(criteria, name) for name in Criteria.__dataclass_fields__}


def _seconds(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"{word!r} is no time in seconds from the first frame, such as 12.5")
    return value
