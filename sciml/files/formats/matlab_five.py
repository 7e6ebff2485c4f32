"""The numeric arrays of a MATLAB v5 file ("MAT-File Format", The MathWorks).

A file is a header of 128 bytes and then elements: a tag (type, bytes) and a payload padded to 8 bytes. A variable is
a matrix element, often inside a compressed one, of four or five elements: flags, dimensions, name, real part,
imaginary part. Every length is checked against what is there, because the usual compiled reader can end the process
on damaged bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError

if TYPE_CHECKING:
    import numpy

__all__ = ["arrays"]

STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
MATRIX, COMPRESSED = 14, 15
LOGICAL, COMPLEX = 0x0200, 0x0800


class _Damage(ValueError):
    """The bytes contradict the format."""


def arrays(path: str) -> dict[str, numpy.ndarray[Any, Any]]:
    """Read every numeric array, as contiguous native arrays; cells, structures, text and sparse matrices are left out.

    Raises:
        InputError: the bytes contradict the format.
    """
    content = Path(path).read_bytes()
    order = "<" if content[126:128] == b"IM" else ">"
    found = {}
    try:
        for kind, payload in _elements(memoryview(content)[128:], order):
            body = payload
            if kind == COMPRESSED:
                inner = list(_elements(memoryview(zlib.decompress(payload)), order))
                if len(inner) != 1:
                    raise _Damage("a compressed element holds more than one")
                kind, body = inner[0]
            if kind == MATRIX and (read := _matrix(body, order)) is not None:
                found[read[0]] = read[1]
    except (_Damage, zlib.error, ValueError, OverflowError, MemoryError) as error:
        raise InputError(f"'{path}' is a damaged MATLAB file ({error}); copy or generate it again.") from error
    return found


def _elements(view: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and payload of each element, one after the other."""
    side = "little" if order == "<" else "big"
    at = 0
    while at < len(view):
        if len(view) - at < 8:
            raise _Damage("an element is cut short")
        word = int.from_bytes(view[at : at + 4], side)  # type: ignore[arg-type]
        small = word >> 16
        kind, size, start = (word & 0xFFFF, small, at + 4) if small else (word, 0, at + 8)
        if not small:
            size = int.from_bytes(view[at + 4 : at + 8], side)  # type: ignore[arg-type]
        elif small > 4:
            raise _Damage("a short element is longer than four bytes")
        if start + size > len(view):
            raise _Damage("an element is cut short")
        yield kind, view[start : start + size]
        at = at + 8 if small else start + size + (0 if kind == COMPRESSED else -size % 8)


def _matrix(view: memoryview, order: str) -> tuple[str, numpy.ndarray[Any, Any]] | None:
    import numpy as np

    parts = list(_elements(view, order))
    if not parts:
        return None  # MATLAB writes empty matrices so
    flags = _numbers(*parts[0], order)
    if flags.size != 2:
        raise _Damage("the flags of a matrix are missing")
    kind = CLASSES.get(int(flags[0]) & 0xFF)
    if kind is None:
        return None
    if len(parts) < 4:
        raise _Damage("a part of a matrix is missing")
    shape = tuple(int(n) for n in _numbers(*parts[1], order))
    name = bytes(parts[2][1]).decode("latin-1")
    count = 1
    for n in shape:
        count *= n
    if len(shape) < 2 or min(shape) < 0 or not name.isidentifier():
        raise _Damage("the name or the dimensions of a matrix are impossible")
    values: Any = _numbers(*parts[3], order)
    if int(flags[0]) & COMPLEX:
        if len(parts) < 5:
            raise _Damage("an imaginary part is missing")
        imaginary = _numbers(*parts[4], order)
        if values.size != imaginary.size:
            raise _Damage("real and imaginary part differ in length")
        values = values.astype("c8" if kind == "f4" else "c16")
        values.imag = imaginary
    else:
        values = values.astype(bool if int(flags[0]) & LOGICAL else kind)
    if values.size != count:
        raise _Damage(f"'{name}' has {values.size} numbers for the shape {shape}")
    return name, np.ascontiguousarray(values.reshape(shape, order="F"))


def _numbers(kind: int, payload: memoryview, order: str) -> Any:
    import numpy as np

    if kind not in STORED:
        raise _Damage("numbers of an unknown type")
    return np.frombuffer(payload, np.dtype(order + STORED[kind]))
