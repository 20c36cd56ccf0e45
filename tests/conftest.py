"""What every part of the test suite may use, and what the programs that tests start can rely on."""

import os
import signal
from pathlib import Path

import pytest

#: Real videos, photographs and scenes; not part of the project. Tests that want them skip where they are missing.
SHARED_DATA = Path(os.environ.get("MIMIC_WDS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_configure() -> None:
    """A suite that a script runs in the background is deaf to Ctrl-C, and so would be every program that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real sample data, or a skip."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no sample data at {SHARED_DATA}; set MIMIC_WDS_TEST_DATA to a folder that has them")
    return SHARED_DATA
