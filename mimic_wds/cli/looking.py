"""What the verbs share that print many lines for other programs: a reader that has seen enough is no error."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def may_be_cut() -> Iterator[None]:
    """End quietly when whoever reads stdout (`head`, say) closes it."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
