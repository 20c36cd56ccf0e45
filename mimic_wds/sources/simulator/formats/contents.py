"""What a file holds, whatever its name says."""


def describe(start: bytes) -> str:
    """What a file seems to be, by its first bytes; for messages."""
    known = {
        b"version https://git-lfs": "but a pointer of Git LFS: fetch the file itself with git lfs pull",
        b"glTF": "but binary glTF",
        b"ply": "but a PLY file",
        b"PK\x03\x04": "but a zip archive",
        b"\x1f\x8b": "but compressed with gzip",
        b"<": "but HTML or XML: a download that failed?",
        b"{": "but JSON",
    }
    text = start.strip()
    if not text:
        return "it is empty"
    return next((what for magic, what in known.items() if text.startswith(magic)), f"it begins with {start[:12]!r}")
