"""The size of a JPEG picture from its header, without decoding it (ITU-T T.81, annex B)."""

#: Markers of a frame header, by the last of their two bytes: SOF0-15 without DHT (C4), JPG (C8) and DAC (CC).
_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

#: Markers that stand alone: TEM, RST0-7, SOI, EOI.
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})

_SCAN = 0xDA


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) in pixels of a whole JPEG file, or None if `data` is not one.

    Whole: it starts and ends with the markers of a JPEG file (zeros may follow) and has a frame header before its first
    scan. The scan itself is not decoded.
    """
    if data[:2] != b"\xff\xd8" or not (data.endswith(b"\xff\xd9") or data.rstrip(b"\0").endswith(b"\xff\xd9")):
        return None
    position, size = 2, None
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _ALONE:
            position += 2
            continue
        if marker == _SCAN:
            return size
        if marker in _FRAME:
            if size is not None or position + 9 > len(data):
                return None
            height, width = (int.from_bytes(data[position + at : position + at + 2], "big") for at in (5, 7))
            size = (height, width) if height and width else None
        position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
    return None
