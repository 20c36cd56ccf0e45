"""Stand-in: values that are checked as strictly as bindings of C++ check them."""

import math
from typing import ClassVar

import numpy as np


class Vector3:
    """Like magnum.Vector3: three float32, no arithmetic with arrays, `np.array` takes it."""

    def __init__(self, values):
        self._values = tuple(float(np.float32(value)) for value in values)

    def __getitem__(self, index):
        return self._values[index]

    def __len__(self):
        return 3

    x = property(lambda self: self._values[0])
    y = property(lambda self: self._values[1])
    z = property(lambda self: self._values[2])


def vector(value):
    """(3,) float64 of what a binding takes for a vector. Whole numbers raise TypeError, as they do there."""
    if isinstance(value, np.ndarray):
        right = value.shape == (3,) and value.dtype.kind == "f"
    else:
        right = isinstance(value, (list, tuple, Vector3)) and len(value) == 3
        right = right and all(isinstance(number, float) for number in value)
    if not right:
        raise TypeError(f"incompatible function arguments: expected a vector of 3 floats, got {value!r}")
    return np.array([value[0], value[1], value[2]], np.float32).astype(np.float64)


class Fields:
    """A class of C++: it has the fields of `DEFAULTS` and no others, each of one type."""

    DEFAULTS: ClassVar[dict[str, object]] = {}
    VECTORS: ClassVar[tuple[str, ...]] = ()

    def __init__(self):
        for name, value in self.DEFAULTS.items():
            object.__setattr__(self, name, list(value) if isinstance(value, list) else value)

    def __setattr__(self, name, value):
        if name not in self.DEFAULTS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        default = self.DEFAULTS[name]
        if name in self.VECTORS:
            value = vector(value)
        elif isinstance(default, float) and (not isinstance(value, (int, float)) or isinstance(value, bool)):
            raise TypeError(f"{name}: expected a float, got {value!r}")
        elif isinstance(default, (bool, int, str)) and type(value) is not type(default):
            raise TypeError(f"{name}: expected {type(default).__name__}, got {value!r}")
        object.__setattr__(self, name, value)

    def __eq__(self, other):
        return type(self) is type(other) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in self.DEFAULTS
        )

    __hash__ = None


def check_state(position, rotation):
    """Raise ValueError, as the validators of AgentState do."""
    if not np.isfinite(np.asarray(position, np.float64)).all():
        raise ValueError("position is not finite")
    if len(rotation) != 4 or not math.isclose(float(np.linalg.norm(rotation)), 1.0, abs_tol=1e-5):
        raise ValueError("rotation is not a unit quaternion")
