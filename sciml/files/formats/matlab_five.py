"""The numeric arrays and structures of a MATLAB v5 file ("MAT-File Format", The MathWorks).

A file is a header of 128 bytes and then elements: a tag (type, bytes) and a payload padded to 8 bytes. A variable is
a matrix element, often inside a compressed one, of four or five elements: flags, dimensions, name, real part,
imaginary part; a structure has its field names and one matrix element for every field instead. Every length is checked against what is there, because the usual compiled reader can end the process
on damaged bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError

if TYPE_CHECKING:
    import numpy

__all__ = ["arrays", "cells", "fields", "shapes", "structures"]

STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
MATRIX, COMPRESSED = 14, 15
CELL, STRUCTURE, TEXT = 1, 2, 4
LOGICAL, COMPLEX = 0x0200, 0x0800
LETTERS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
DEEPEST = 16
HEAD = 1 << 16
"""Bytes of a structure that are enough to see the names of its fields."""


class _Damage(ValueError):
    """The bytes contradict the format."""


def arrays(path: str) -> dict[str, numpy.ndarray[Any, Any]]:
    """Read every numeric array, as contiguous native arrays; cells, structures, text and sparse matrices are left out.

    Raises:
        InputError: the bytes contradict the format.
    """
    found = {}
    with _reading(path):
        for body, order in _matrices(path):
            if (read := _matrix(body, order)) is not None:
                found[read[0]] = read[1]
    return found


def structures(path: str) -> dict[str, dict[str, Any]]:
    """Read every structure of one element: field -> array, text, structure, or None for what is none of these.

    Raises:
        InputError: the bytes contradict the format.
    """
    found = {}
    with _reading(path):
        for body, order in _matrices(path):
            if (read := _structure(body, order)) is not None and read[0]:
                found[read[0]] = read[1]
    return found


def fields(path: str) -> dict[str, tuple[str, ...]]:
    """Names of the structures and of their fields, from the first bytes of each; damaged ones are left out."""
    found = {}
    try:
        for body, order in _matrices(path, HEAD):
            try:
                parts = list(islice(_elements(body, order), 5))
                if _class(parts, order) == STRUCTURE and len(parts) == 5:
                    found[_name(parts)] = _field_names(parts, order)
            except (ValueError, OverflowError):
                continue
    except (ValueError, OverflowError, zlib.error):
        pass
    return found


def shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the variables, from the first bytes of each; damaged ones are left out."""
    found = {}
    try:
        for body, order in _matrices(path, HEAD):
            try:
                parts = list(islice(_elements(body, order), 3))
                if len(parts) == 3:
                    found[_name(parts)] = tuple(int(n) for n in _numbers(*parts[1], order))
            except (ValueError, OverflowError):
                continue
    except (ValueError, OverflowError, zlib.error):
        pass
    return found


def cells(path: str) -> dict[str, list[Any]]:
    """Read every cell array: its contents in MATLAB's order, arrays, text, structures, or None for what is none of these.

    Raises:
        InputError: the bytes contradict the format.
    """
    found = {}
    with _reading(path):
        for body, order in _matrices(path):
            parts = list(_elements(body, order))
            if _class(parts, order) != CELL:
                continue
            if len(parts) < 3 or any(kind != MATRIX for kind, _ in parts[3:]):
                raise _Damage("a cell is missing")
            found[_name(parts)] = [_value(inner, order, 0) for _, inner in parts[3:]]
    return found


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, zlib.error, OverflowError, MemoryError) as error:  # _Damage is a ValueError
        raise InputError(f"'{path}' is a damaged MATLAB file ({error}); copy or generate it again.") from error


def _matrices(path: str, most: int = 0) -> Iterator[tuple[memoryview, str]]:
    """The payload of every matrix element of a file and its byte order; only the first `most` bytes if that is not 0."""
    content = Path(path).read_bytes()
    order = "<" if content[126:128] == b"IM" else ">"
    for kind, payload in _elements(memoryview(content)[128:], order):
        body = payload
        if kind == COMPRESSED and most:
            start = zlib.decompressobj().decompress(payload, most)
            kind, body = int.from_bytes(start[:4], "little" if order == "<" else "big"), memoryview(start)[8:]
        elif kind == COMPRESSED:
            inner = list(_elements(memoryview(zlib.decompress(payload)), order))
            if len(inner) != 1:
                raise _Damage("a compressed element holds more than one")
            kind, body = inner[0]
        if kind == MATRIX:
            yield body, order


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


def _class(parts: list[tuple[int, memoryview]], order: str) -> int:
    """The class of a matrix; 0 for an empty one, which MATLAB writes without any parts."""
    return _flags(parts, order) & 0xFF if parts else 0


def _flags(parts: list[tuple[int, memoryview]], order: str) -> int:
    flags = _numbers(*parts[0], order)
    if flags.size != 2:
        raise _Damage("the flags of a matrix are missing")
    return int(flags[0])


def _name(parts: list[tuple[int, memoryview]]) -> str:
    return bytes(parts[2][1]).decode("latin-1")


def _shape(parts: list[tuple[int, memoryview]], order: str) -> tuple[tuple[int, ...], int]:
    """Dimensions and their product."""
    if len(parts) < 4:
        raise _Damage("a part of a matrix is missing")
    shape = tuple(int(n) for n in _numbers(*parts[1], order))
    count = 1
    for n in shape:
        count *= n
    if len(shape) < 2 or min(shape) < 0:
        raise _Damage("the dimensions of a matrix are impossible")
    return shape, count


def _field_names(parts: list[tuple[int, memoryview]], order: str) -> tuple[str, ...]:
    width = _numbers(*parts[3], order)
    text = bytes(parts[4][1])
    if width.size != 1 or not 0 < int(width[0]) <= 64 or len(text) % int(width[0]):
        raise _Damage("the field names of a structure are impossible")
    cut = range(0, len(text), int(width[0]))
    names = tuple(text[at : at + int(width[0])].split(b"\0")[0].decode("latin-1") for at in cut)
    if len(set(names)) != len(names) or not all(name.isidentifier() for name in names):
        raise _Damage("the field names of a structure are impossible")
    return names


def _structure(view: memoryview, order: str, depth: int = 0) -> tuple[str, dict[str, Any]] | None:
    """Name and fields of a structure of one element; None for other matrices."""
    parts = list(_elements(view, order))
    if _class(parts, order) != STRUCTURE:
        return None
    if depth > DEEPEST:
        raise _Damage(f"structures are nested more than {DEEPEST} deep")
    _, count = _shape(parts, order)
    if len(parts) < 5:
        raise _Damage("a part of a structure is missing")
    names = _field_names(parts, order)
    if count != 1:
        return None
    if len(parts) != 5 + len(names) or any(kind != MATRIX for kind, _ in parts[5:]):
        raise _Damage("a field of a structure is missing")
    return _name(parts), {name: _value(body, order, depth) for name, (_, body) in zip(names, parts[5:], strict=True)}


def _value(view: memoryview, order: str, depth: int) -> Any:
    parts = list(_elements(view, order))
    kind = _class(parts, order)
    if kind == STRUCTURE:
        inner = _structure(view, order, depth + 1)
        return None if inner is None else inner[1]
    if kind == TEXT:
        _, count = _shape(parts, order)
        stored, letters = parts[3]
        if stored not in LETTERS:
            raise _Damage("text of an unknown type")
        wide = LETTERS[stored] + (("-le" if order == "<" else "-be") if LETTERS[stored][-2:] in ("16", "32") else "")
        return bytes(letters).decode(wide, "replace")[:count]
    read = _matrix(view, order, named=False)
    return None if read is None else read[1]


def _matrix(view: memoryview, order: str, named: bool = True) -> tuple[str, numpy.ndarray[Any, Any]] | None:
    import numpy as np

    parts = list(_elements(view, order))
    if not parts:
        return None  # MATLAB writes empty matrices so
    flags = _flags(parts, order)
    kind = CLASSES.get(flags & 0xFF)
    if kind is None:
        return None
    shape, count = _shape(parts, order)
    name = _name(parts)
    if named and not name.isidentifier():
        raise _Damage("the name of a matrix is impossible")
    values: Any = _numbers(*parts[3], order)
    if flags & COMPLEX:
        if len(parts) < 5:
            raise _Damage("an imaginary part is missing")
        imaginary = _numbers(*parts[4], order)
        if values.size != imaginary.size:
            raise _Damage("real and imaginary part differ in length")
        values = values.astype("c8" if kind == "f4" else "c16")
        values.imag = imaginary
    else:
        values = values.astype(bool if flags & LOGICAL else kind)
    if values.size != count:
        raise _Damage(f"'{name}' has {values.size} numbers for the shape {shape}")
    return name, np.ascontiguousarray(values.reshape(shape, order="F"))


def _numbers(kind: int, payload: memoryview, order: str) -> Any:
    import numpy as np

    if kind not in STORED:
        raise _Damage("numbers of an unknown type")
    return np.frombuffer(payload, np.dtype(order + STORED[kind]))
