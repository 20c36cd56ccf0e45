"""What a JPEG picture is, from its headers, without decoding it (ITU-T T.81, annex B; EXIF 2.3, section 4.6)."""

from typing import Literal, NamedTuple

#: Markers of a frame header, by the last of their two bytes: SOF0-15 without DHT (C4), JPG (C8) and DAC (CC).
_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BASELINE = 0xC0

#: Markers that stand alone: TEM, RST0-7, SOI, EOI.
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})

_SCAN, _APP1 = 0xDA, 0xE1
_END = b"\xff\xd9"

#: EXIF tag that says how to turn a picture; 1 = not at all.
_ORIENTATION_TAG, _UPRIGHT = 0x0112, 1


class JpegHead(NamedTuple):
    """What the headers of a JPEG file say."""

    size: tuple[int, int]  #: (height, width) in pixels, as stored
    components: int  #: 1 grey, 3 colour, 4 CMYK
    is_baseline: bool  #: sequential, 8 bit, Huffman; not progressive
    orientation: int  #: 1 = as stored; others are turned or mirrored

    @property
    def is_plain(self) -> bool:
        """True if every reader shows the same picture, of this size."""
        return self.is_baseline and self.components in (1, 3) and self.orientation == _UPRIGHT


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) in pixels of a whole JPEG file, or None if `data` is not one; see `jpeg_head`."""
    head = jpeg_head(data)
    return head.size if head else None


def jpeg_head(data: bytes) -> JpegHead | None:
    """The headers of a whole JPEG file, or None if `data` is not one.

    Whole: it starts and ends with the markers of a JPEG file (zeros may follow) and has a frame header before its first
    scan. The scan itself is not decoded.
    """
    if data[:2] != b"\xff\xd8" or not (data.endswith(_END) or data.rstrip(b"\0").endswith(_END)):
        return None
    position, frame, orientation = 2, None, _UPRIGHT
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _ALONE:
            position += 2
            continue
        if marker == _SCAN:
            return _head(data, frame, orientation) if frame is not None else None
        length = max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
        if marker in _FRAME:
            if frame is not None or position + 10 > len(data):
                return None
            frame = position
        elif marker == _APP1 and data[position + 4 : position + 10] == b"Exif\0\0":
            orientation = _orientation(data[position + 10 : position + 2 + length])
        position += 2 + length
    return None


def trimmed_jpeg(data: bytes) -> tuple[bytes, JpegHead | None]:
    """A JPEG file without what follows its last end marker, and its head; the head is None if it is not whole."""
    if not data.endswith(_END):
        data = data[: data.rfind(_END) + len(_END)]
    return data, jpeg_head(data)


def _head(data: bytes, frame: int, orientation: int) -> JpegHead | None:
    """What the frame header at byte `frame` says; None for a picture without pixels."""
    height, width = (int.from_bytes(data[frame + at : frame + at + 2], "big") for at in (5, 7))
    is_baseline = data[frame + 1] == _BASELINE and data[frame + 4] == 8
    return JpegHead((height, width), data[frame + 9], is_baseline, orientation) if height and width else None


def _orientation(tiff: bytes) -> int:
    """The orientation in the first directory of EXIF data; 1 if it says none."""
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)

    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if number(entry, 2) == _ORIENTATION_TAG:
            return number(entry + 8, 2) or _UPRIGHT
    return _UPRIGHT
