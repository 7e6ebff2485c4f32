"""What the XML header of a magnetic resonance scan says about its encoding (ISMRMRD, Inati et al. 2017,
doi:10.1002/mrm.26089): the matrix and the field of view that were encoded and those of the image, the shape of the
trajectory, and which step of a phase encoding stands for the middle of k-space.
"""

from __future__ import annotations

import xml.etree.ElementTree as tree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sciml.domains.errors import InputError

__all__ = ["Encoding", "read_header"]

LARGEST_HEADER = 1 << 24
"""Bytes of a header that are still parsed."""


@dataclass(frozen=True)
class Encoding:
    """One encoding. Triples are (x, y, z), x along the readout; lengths in mm; None where the header says nothing.

    `centre` and `largest` hold the middle and the last step of each counter, as in `kspace_encoding_step_1`.
    """

    encoded: tuple[int, int, int] | None = None
    encoded_mm: tuple[float, float, float] | None = None
    image: tuple[int, int, int] | None = None
    image_mm: tuple[float, float, float] | None = None
    trajectory: str = ""
    centre: Mapping[str, int] = field(default_factory=dict)
    largest: Mapping[str, int] = field(default_factory=dict)

    def oversampling(self) -> int:
        """How many times finer the readout was sampled than the image needs; 1 if the header does not say clearly."""
        if self.encoded is None or self.image is None or self.encoded_mm is None or self.image_mm is None:
            return 1
        if self.image[0] < 1 or self.encoded[0] % self.image[0] or not self.image_mm[0] > 0:
            return 1
        factor = self.encoded[0] // self.image[0]
        return factor if abs(self.encoded_mm[0] / self.image_mm[0] - factor) < 0.01 * factor else 1

    def attributes(self) -> dict[str, Any]:
        """What is told with a data set."""
        told = {
            "encoded_matrix": self.encoded,
            "encoded_field_of_view": self.encoded_mm,
            "image_matrix": self.image,
            "image_field_of_view": self.image_mm,
        }
        found: dict[str, Any] = {name: list(value) for name, value in told.items() if value is not None}
        if self.encoded_mm or self.image_mm:
            found["field_of_view_unit"] = "mm"
        return {**found, **({"trajectory_kind": self.trajectory} if self.trajectory else {})}


def read_header(path: str, text: bytes | str) -> tuple[Encoding, ...]:
    """The encodings of a header, in its order; at least one.

    Raises:
        InputError: text that is no XML, declares entities, is too long, or has numbers that are none.
    """
    content = text.encode() if isinstance(text, str) else bytes(text)
    content = content.split(b"\0")[0]
    if len(content) > LARGEST_HEADER or b"<!ENTITY" in content or b"<!DOCTYPE" in content:
        raise InputError(
            f"the header of '{path}' is longer than {LARGEST_HEADER} bytes or declares entities; write it plainly."
        )
    try:
        root = tree.fromstring(content)  # noqa: S314 (it declares no entities and is short)
    except (tree.ParseError, LookupError, ValueError) as error:
        raise InputError(f"the header of '{path}' is no XML ({error}); copy or convert the file again.") from error
    try:
        found = tuple(_encoding(node) for node in _children(root, "encoding"))
    except (ValueError, OverflowError) as error:
        raise InputError(f"the header of '{path}' has a number that is none ({error}); correct it.") from error
    if not found:
        raise InputError(f"the header of '{path}' describes no encoding; convert the file again.")
    return found


def _encoding(node: Any) -> Encoding:
    encoded, image = (_first(node, name) for name in ("encodedSpace", "reconSpace"))
    limits = _first(node, "encodingLimits")
    centre: dict[str, int] = {}
    largest: dict[str, int] = {}
    for limit in () if limits is None else limits:
        name = _local(limit)
        for key, kept in (("center", centre), ("maximum", largest)):
            if (value := _first(limit, key)) is not None and value.text:
                kept[name] = int(value.text)
    shape = _first(node, "trajectory")
    return Encoding(
        _matrix(encoded),
        _lengths(encoded),
        _matrix(image),
        _lengths(image),
        (shape.text or "").strip().lower() if shape is not None else "",
        centre,
        largest,
    )


def _matrix(space: Any) -> tuple[int, int, int] | None:
    found = _triple(space, "matrixSize")
    if found is None:
        return None
    sizes = tuple(int(part) for part in found)
    if min(sizes) < 1 or max(sizes) > 1 << 20:
        raise ValueError(f"matrixSize {sizes}")
    return sizes[0], sizes[1], sizes[2]


def _lengths(space: Any) -> tuple[float, float, float] | None:
    found = _triple(space, "fieldOfView_mm")
    lengths = (0.0, 0.0, 0.0) if found is None else (float(found[0]), float(found[1]), float(found[2]))
    return (
        lengths if all(0 < length < 1e5 for length in lengths) else None
    )  # writers put zeros for what they do not know


def _triple(space: Any, name: str) -> list[str] | None:
    node = None if space is None else _first(space, name)
    parts = [] if node is None else [_first(node, axis) for axis in "xyz"]
    if len(parts) != 3 or any(part is None for part in parts):
        return None
    return [part.text or "" for part in parts if part is not None]


def _local(node: Any) -> str:
    """The name of an element without its namespace."""
    return str(node.tag).rsplit("}", 1)[-1]


def _children(node: Any, name: str) -> Iterator[Any]:
    return (child for child in node if _local(child) == name)


def _first(node: Any, name: str) -> Any:
    return next(_children(node, name), None)
