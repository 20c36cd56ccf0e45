"""Memory for pixels that is used again: fresh pages from the system would cost large batches half of their speed."""

import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class PixelMemory:
    """Gives uint8 tensors of one shape. Memory is used again once nothing refers to it, so no tensor ever changes.

    Every tensor, slice or array that shares the memory keeps it, just as if it were freed and allocated anew. At most
    `keep` unused pieces are held back. Pinned memory comes from torch's own cache, which also waits for copies to the
    device that are under way.
    """

    def __init__(self, shape: tuple[int, ...], *, keep: int, pinned: bool = False):
        self._shape = shape
        self._pinned = pinned
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=keep)

    def take(self) -> Tensor:
        """A tensor with any contents."""
        if self._pinned:
            return torch.empty(self._shape, dtype=torch.uint8, pin_memory=True)
        memory = self._free.pop() if self._free else np.empty(self._shape, np.uint8)
        # The tensor's storage holds on to this view, and nothing else does: when it goes, so has every user.
        view = memory[...]
        weakref.finalize(view, self._free.append, memory).atexit = False
        return torch.from_numpy(view)
