"""Being asked to stop, politely."""

import signal
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopSignal:
    """SIGINT, SIGTERM and SIGUSR1 only raise a flag while this context is open, so that a run ends between two steps.

    Slurm gives notice by SIGTERM before it preempts, and by SIGUSR1 before time is up (`sbatch --signal=USR1@120`).

    Launchers pass Ctrl-C on a second time; the third SIGINT interrupts at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._interrupts = 0
        self._before: dict[int, object] = {}

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.requested = True
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 2:
            raise KeyboardInterrupt

    def __enter__(self) -> "StopSignal":
        self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
