r"""Text of any length in HDF5 files, made safe to read.

Such text lies in *global heap collections*: blocks that begin with `GCOL`, a version, three zeros and the block's size, followed
by objects, each with an index (0: the free space at the end), a count, and a size, padded to eight bytes (HDF5 File Format
Specification, III.E). The library walks a block from object to object by these sizes. Where one was damaged to a free space
of size zero it does not come to an end, inside C, where no signal of ours reaches it; so the walk is made here first.

A file is looked through once (again when its size or date changes): all of it up to twice `WHOLE` bytes, of larger ones `WHOLE` at
either end, as attributes are written first or last. *Fails when* a damaged block lies in the middle of a larger file, or in
one whose lengths are not stored in eight bytes. Values whose type is a list of any length of something else than text
(damaged types among them) make the library read memory that is not there; they are left out, not read.
"""

from __future__ import annotations

import functools
import mmap
import struct
from pathlib import Path
from typing import Any

from sciml.domains.errors import InputError
from sciml.files.axes import plain

__all__ = ["attribute", "attributes", "check", "damaged"]

WHOLE = 1 << 25
MARK = b"GCOL\x01\x00\x00\x00"
HEAD, ALIGN = 16, 8


def check(path: str) -> None:
    """Raise InputError where a block of text is damaged."""
    there = Path(path).stat()
    at = _looked(str(Path(path).resolve()), there.st_size, there.st_mtime_ns)
    if at is not None:
        raise InputError(
            f"'{path}' is a truncated or damaged HDF5 file (its text at byte {at} does not add up); copy or generate it again."
        )


@functools.lru_cache(maxsize=256)
def _looked(path: str, size: int, stamp: int) -> int | None:
    """Where the first damaged block begins."""
    if not size:
        return None
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        parts = [(0, size)] if size <= 2 * WHOLE else [(0, WHOLE), (size - WHOLE, size)]
        return next((at for part in parts if (at := damaged(content, *part)) is not None), None)


def damaged(content: Any, first: int = 0, last: int | None = None) -> int | None:
    """The first place between `first` and `last` of bytes where a block begins whose objects do not fill it; None: nowhere."""
    end = len(content) if last is None else last
    at = content.find(MARK, first, end)
    while at >= 0:
        size = struct.unpack_from("<Q", content, at + len(MARK))[0] if at + HEAD <= len(content) else 0
        # A block lies inside the file and is no shorter than its own head; anything else, the library refuses itself.
        if HEAD <= size <= len(content) - at and not _adds_up(content, at, size):
            return int(at)
        at = content.find(MARK, at + 1, end)
    return None


def _adds_up(content: Any, begin: int, size: int) -> bool:
    at, end = begin + HEAD, begin + size
    while at + HEAD <= end:
        index, _, _, length = struct.unpack_from("<HHIQ", content, at)
        step = length if index == 0 else HEAD + -(-length // ALIGN) * ALIGN
        if step < HEAD or at + step > end:
            return False
        at += step
    return True


def attributes(item: Any) -> dict[str, Any]:
    """The attributes of a group or dataset as Python sees them best; lists of any length (not text) are left out."""
    return {name: plain(item.attrs[name]) for name in item.attrs if _safe(item, name)}


def attribute(item: Any, name: str, default: Any = None) -> Any:
    """One of them, or `default`."""
    return plain(item.attrs[name]) if name in item.attrs and _safe(item, name) else default


def _safe(item: Any, name: str) -> bool:
    import h5py

    kind = item.attrs.get_id(name).get_type()
    return not kind.detect_class(h5py.h5t.VLEN)
