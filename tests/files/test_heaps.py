"""Damaged text of any length in HDF5 files: refused before the library walks into it."""

from __future__ import annotations

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from sciml.domains.errors import InputError
from sciml.files import open_dataset
from sciml.files.heaps import attributes, damaged


def written(path: Path) -> bytes:
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "a text of some length"
        data = file.create_dataset("u", data=np.arange(12.0).reshape(3, 4))
        data.attrs["dims"] = np.array(["sample", "x"], dtype=h5py.string_dtype())
        data.attrs["units"] = "1"
    return path.read_bytes()


def sizes_in(content: bytes) -> list[int]:
    """Where the sizes of the objects of the first block stand."""
    begin = content.index(b"GCOL")
    at, found = begin + 16, []
    while content[at : at + 2] != b"\0\0":
        found.append(at + 8)
        at += 16 + -(-struct.unpack_from("<Q", content, at + 8)[0] // 8) * 8
    return [*found, at + 8]  # the last is the free space, on which the library stays for ever if its size is zero


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    content = written(tmp_path / "whole.h5")
    assert damaged(content) is None
    data = open_dataset(tmp_path / "whole.h5")
    assert data.attrs["title"] == "a text of some length" and data["u"].dims == ("sample", "x")


@pytest.mark.parametrize("value", [0, 0xFFFFFFFF])
def test_every_damaged_size_is_refused(tmp_path: Path, value: int) -> None:
    content = written(tmp_path / "whole.h5")
    places = sizes_in(content)
    assert len(places) == 5  # title, two names of axes, units, free space
    path = tmp_path / "damaged.h5"
    for place in places:
        changed = bytearray(content)
        changed[place : place + 8] = struct.pack("<Q", value)
        path.write_bytes(changed)
        if (
            damaged(bytes(changed)) is None
        ):  # a text of no length ends where the next object is not: still no endless walk
            assert value == 0 and place != places[-1]
            continue
        with pytest.raises(InputError, match=r"damaged\.h5' is a truncated or damaged HDF5 file") as caught:
            open_dataset(path)
        assert str(content.index(b"GCOL")) in str(caught.value)


def test_a_file_that_is_mended_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mended.h5"
    content = written(path)
    path.write_bytes(content[: sizes_in(content)[-1]] + b"\0" * 8 + content[sizes_in(content)[-1] + 8 :])
    with pytest.raises(InputError):
        open_dataset(path)
    path.write_bytes(content)
    assert open_dataset(path).attrs["title"]


def test_the_letters_in_numbers_are_no_block() -> None:
    block = b"GCOL\x01\0\0\0" + struct.pack("<Q", 1 << 40) + b"\0" * 64
    assert damaged(block) is None and damaged(b"GCOL" * 40) is None and damaged(b"GCOL\x01\0\0\0") is None
    inside = b"GCOL\x01\0\0\0" + struct.pack("<Q", 64) + b"\0" * 48
    assert damaged(b"\0" * 7 + inside) == 7


def test_lists_of_any_length_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    """A damaged type of text reads as such a list, and the library then reads memory that is not there."""
    path = tmp_path / "lists.h5"
    with h5py.File(path, "w") as file:
        file.attrs["kept"] = "text"
        ragged = np.empty(2, dtype=object)
        ragged[:] = [np.arange(2), np.arange(3)]
        file.attrs.create("ragged", ragged, dtype=h5py.vlen_dtype(np.int64))
        assert attributes(file) == {"kept": "text"}
    content = bytearray(path.read_bytes())
    at = content.index(b"kept\0") + 8  # version and class of the type, then what kind of list it is
    assert content[at] & 15 == 9
    content[at + 1] = 0xFF
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert attributes(file) == {}
