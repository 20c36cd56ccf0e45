"""A user's own test of every frame: text, nudity, a licence mark, whatever a data set must not hold.

A recipe names the filter, ``"package.module:function"`` or the name of an entry point in the group
``mimic_wds.image_filters``. The function takes an (H, W, 3) uint8 RGB image and returns True to keep the frame.
"""

import difflib
import hashlib
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from sys import modules
from typing import TypeAlias

import numpy as np

from mimic_wds.pairs import Image, View

#: (H, W, 3) uint8 RGB -> True to keep the frame, False to veto it.
ImageFilter: TypeAlias = Callable[[Image], bool]

#: Entry-point group in which an installed package offers filters by name.
GROUP = "mimic_wds.image_filters"

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def load_image_filter(spec: str) -> ImageFilter:
    """The filter that `spec` names. Raises ValueError when it is unknown, cannot be imported or cannot be called."""
    point = _entry_point(spec)
    try:
        found = point.load()
    except Exception as error:  # importing runs the user's code: whatever it raises, the spec cannot be used
        raise ValueError(_not_imported(spec, point, error)) from error
    if not callable(found):
        raise ValueError(f"image filter {spec!r} is a {type(found).__name__}: expected a function of an image")
    return found  # type: ignore[no-any-return]  # what a user's function returns is checked in keeps()


def keeps(image_filter: ImageFilter, spec: str, view: View) -> bool:
    """Whether the filter called `spec` keeps a view; it cannot write to the image.

    Raises RuntimeError naming filter and frame when it raises or returns no truth value: a fault of its code, not of
    the frame, that must not pass for a veto.
    """
    image = view.image.view()
    image.flags.writeable = False
    try:
        answer = image_filter(image)
    except Exception as error:
        raise RuntimeError(f"image filter {spec!r} failed on frame {view.frame!r}: {error!r}") from error
    if not isinstance(answer, bool | np.bool_):
        raise RuntimeError(
            f"image filter {spec!r} returned {type(answer).__name__} on frame {view.frame!r}: "
            "expected True to keep the frame or False to veto it"
        )
    return bool(answer)


def identity(spec: str) -> str:
    """``"spec version"`` for the manifest: the version of the distribution that has the filter.

    A filter outside of any distribution is named by the SHA-256 of its module's file instead. Raises ValueError as
    load_image_filter does.
    """
    load_image_filter(spec)
    point = _entry_point(spec)
    if point.dist is not None:
        return f"{spec} {point.dist.version}"
    owners = metadata.packages_distributions().get(point.module.partition(".")[0], [])
    if owners:
        return f"{spec} {metadata.version(sorted(owners)[0])}"
    file = getattr(modules[point.module], "__file__", None)
    return f"{spec} sha256:{hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]}" if file else spec


def _entry_point(spec: str) -> metadata.EntryPoint:
    """What `spec` points to, found but not loaded."""
    if _PATH.fullmatch(spec):
        return metadata.EntryPoint(name=spec, value=spec, group=GROUP)
    known = {(point.name, point.value): point for point in metadata.entry_points(group=GROUP)}
    matching = [point for (name, _), point in sorted(known.items()) if name == spec]
    if not matching:
        raise ValueError(_unknown(spec, sorted({name for name, _ in known})))
    if len(matching) > 1:
        values = " and ".join(point.value for point in matching)
        raise ValueError(f"image filter {spec!r} is offered by {values}: name the one meant by its path")
    return matching[0]


def _unknown(spec: str, names: list[str]) -> str:
    expected = 'expected "package.module:function" or the name of an installed filter'
    near = difflib.get_close_matches(spec, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"installed: {', '.join(names) or 'none'}"
    return f"no image filter is called {spec!r}: {expected}; {hint}"


def _not_imported(spec: str, point: metadata.EntryPoint, error: Exception) -> str:
    message = f"image filter {spec!r} cannot be imported: {error!r}"
    if isinstance(error, AttributeError) and point.module in modules:
        near = difflib.get_close_matches(point.attr, dir(modules[point.module]), n=1)
        return message + (f"; did you mean {point.module}:{near[0]}?" if near else "")
    if isinstance(error, ModuleNotFoundError):
        return f"{message}; install its package, or add its folder to PYTHONPATH"
    return message
