"""The colour stream of ScanNet's `.sens` files (version 4), without loading a file.

Layout, little-endian, as ScanNet's SensReader documents it: u32 version; u64 length and the sensor's name; four 4x4
float32 matrices; i32 compression of colour and of depth; u32 colour width, height, depth width, height; float32 depth
shift; u64 number of frames. Then each frame: 4x4 float32 camera-to-world; u64 time of colour and of depth in
microseconds; u64 bytes of colour and of depth; the colour image, the depth image.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

VERSION = 4

#: Compressions of colour whose images decode by themselves; 0 is raw pixels, which ScanNet does not use.
COLOR_FORMATS = {1: "png", 2: "jpeg"}

#: No sensor has a longer name; a larger length means that the file is something else.
MAX_NAME_BYTES = 4096

_START = struct.Struct("<IQ")
_HEADER = struct.Struct("<64fiiIIIIfQ")
_FRAME = struct.Struct("<16fQQQQ")


@dataclass(frozen=True, slots=True)
class ColorImage:
    """Where the encoded colour image of a frame lies in the file, and when it was taken."""

    offset: int  #: bytes from the start of the file
    num_bytes: int
    time_us: int  #: microseconds


class SensReader:
    """An open `.sens` file: a table of its complete frames, whose colour images are read on demand.

    Building the table reads 96 bytes a frame. A file that is cut has fewer frames than it promises.
    """

    def __init__(self, path: Path):
        """Open the file. Raises ValueError saying why it cannot be read, and OSError."""
        self._file: BinaryIO = path.open("rb", buffering=0)
        try:
            self.promised = self._read_header()  #: frames by the file's header
            self.frames = self._read_table()  #: complete frames, in order
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def color(self, index: int) -> bytes:
        """The encoded colour image of a frame. Raises OSError."""
        frame = self.frames[index]
        self._file.seek(frame.offset)
        return self._file.read(frame.num_bytes)

    def _read_header(self) -> int:
        version, name_bytes = _START.unpack(self._exactly(_START.size))
        if version != VERSION:
            raise ValueError(f"begins with version {version}; a .sens file of version {VERSION} is expected")
        if name_bytes > MAX_NAME_BYTES:
            raise ValueError(f"damaged header: the sensor's name is said to have {name_bytes} bytes")
        self._exactly(name_bytes)
        values = _HEADER.unpack(self._exactly(_HEADER.size))
        compression, promised = values[64], values[-1]
        if compression not in COLOR_FORMATS:
            known = ", ".join(f"{number} ({name})" for number, name in COLOR_FORMATS.items())
            raise ValueError(f"colour compression {compression} is not known; expected {known}")
        assert isinstance(promised, int)
        return promised

    def _read_table(self) -> list[ColorImage]:
        position, end = self._file.tell(), self._file.seek(0, 2)
        table: list[ColorImage] = []
        while len(table) < self.promised and position + _FRAME.size <= end:
            self._file.seek(position)
            *_, time_us, _, color_bytes, depth_bytes = _FRAME.unpack(self._file.read(_FRAME.size))
            offset = position + _FRAME.size
            position = offset + color_bytes + depth_bytes
            if offset + color_bytes > end:
                break
            table.append(ColorImage(offset, color_bytes, time_us))
        return table

    def _exactly(self, num_bytes: int) -> bytes:
        data = self._file.read(num_bytes)
        if len(data) < num_bytes:
            raise ValueError("ends within its header")
        return data
