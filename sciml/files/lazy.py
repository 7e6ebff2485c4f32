"""Arrays that stay in an HDF5 file until they are indexed.

A lazy array holds a path and a dataset name, never an open handle, so it pickles, survives a fork and lets
the file be moved away with a clear error. Each read opens the file read-only. A dataset that is stored in
one piece without filters is read through a memory map, which needs no lock and shares the page cache
between processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from sciml.domains.errors import InputError
from sciml.files.heaps import check

__all__ = ["ComputedArray", "HDF5Array", "NumpyArray", "entire", "open_hdf5"]


@contextmanager
def open_hdf5(path: str) -> Iterator[Any]:
    """Open an HDF5 file read-only; every failure of the library becomes an InputError that names the file."""
    if not Path(path).is_file():
        raise InputError(f"there is no file '{path}'; it may have been moved or deleted: check the path.")
    try:
        check(path)
        handle = h5py.File(path, "r", locking=False)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise InputError(f"'{path}' cannot be read: permission denied; change its mode or copy it.") from error
        raise InputError(
            f"'{path}' is a truncated or damaged HDF5 file ({_first_line(error)}); copy or generate it again."
        ) from error
    with handle:
        yield handle


def _first_line(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text.rstrip(".")


class HDF5Array(BackendArray):  # type: ignore[misc, unused-ignore]
    """One dataset of an HDF5 file as a lazily indexed array for xarray.

    Args:
        path: the file.
        name: the dataset's path inside it.
        reverse: read the axes last to first (MATLAB v7.3 stores them so).

    Raises:
        InputError: the file vanished, shrank, or its bytes cannot be decoded.
    """

    def __init__(self, path: str, name: str, *, reverse: bool = False) -> None:
        self.path = str(Path(path).resolve())
        self.name = name
        self.reverse = reverse
        with open_hdf5(self.path) as handle:
            dataset = handle[name]
            stored = dataset.dtype
            self._pair = stored.names == ("real", "imag")  # MATLAB's complex numbers
            if self._pair:
                self.dtype = np.dtype(np.complex64 if stored["real"].itemsize == 4 else np.complex128)
            else:
                self.dtype = stored.newbyteorder("=")
            self._stored_shape = tuple(int(n) for n in dataset.shape)
            self.shape = self._stored_shape[::-1] if reverse else self._stored_shape
            self._offset = None if handle.userblock_size else _contiguous_offset(dataset)
            self._stored_dtype = stored

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        picks = tuple(key) + (slice(None),) * (len(self.shape) - len(key))
        if self.reverse:
            picks = picks[::-1]
        try:
            values = self._read_map(picks) if self._offset is not None else self._read_library(picks)
        except InputError:
            raise
        except (OSError, RuntimeError, ValueError, KeyError, IndexError) as error:
            raise InputError(
                f"'{self.name}' of '{self.path}' cannot be read ({_first_line(error)}); the file changed or is "
                "damaged: copy or generate it again."
            ) from error
        values = values.T if self.reverse else values
        if self._pair:
            values = (values["real"] + 1j * values["imag"]).astype(self.dtype)
        return np.asarray(values, dtype=self.dtype)

    def _read_map(self, picks: tuple[Any, ...]) -> Any:
        if not Path(self.path).is_file():
            raise InputError(f"'{self.path}' is no longer there; put it back or open the data set again.")
        mapped = np.memmap(self.path, self._stored_dtype, "r", self._offset or 0, self._stored_shape)
        values: Any = mapped
        axis = 0
        for pick in picks:  # one axis at a time: outer indexing
            values = values[(slice(None),) * axis + (pick,)]
            axis += 0 if isinstance(pick, (int, np.integer)) else 1
        return np.array(values)

    def _read_library(self, picks: tuple[Any, ...]) -> Any:
        outside: list[Any] = []  # what h5py is asked for: increasing, unique, at most one list
        inside: list[Any] = []  # what is left to do in memory
        listed = False
        for pick, size in zip(picks, self._stored_shape, strict=True):
            if isinstance(pick, (int, np.integer)):
                outside.append(int(pick) % size if size else int(pick))
                continue
            wanted = np.arange(size)[pick]
            unique, back = np.unique(wanted, return_inverse=True)
            if unique.size == 0:
                outside.append(slice(0, 0))
            elif unique[-1] - unique[0] + 1 == unique.size or listed:
                outside.append(slice(int(unique[0]), int(unique[-1]) + 1))
                back = wanted - unique[0]
            else:
                outside.append(unique)
                listed = True
            inside.append(back)
        with open_hdf5(self.path) as handle:
            dataset = handle[self.name]
            if tuple(dataset.shape) != self._stored_shape:
                raise InputError(
                    f"'{self.name}' of '{self.path}' had shape {self._stored_shape} and now {tuple(dataset.shape)}; "
                    "open the data set again."
                )
            values = dataset[tuple(outside)]
        for axis, back in enumerate(inside):
            if not np.array_equal(back, np.arange(values.shape[axis])):
                values = np.take(values, back, axis=axis)
        return values


def entire(array: Any) -> Any:
    """All values of a lazy array, in memory."""
    return array[indexing.OuterIndexer((slice(None),) * len(array.shape))]


def _contiguous_offset(dataset: Any) -> int | None:
    """Byte offset of a dataset stored in one plain piece, otherwise None."""
    if dataset.dtype.kind not in "fiu" or not dataset.size or dataset.chunks is not None or dataset.external:
        return None
    if dataset.is_virtual or dataset.id.get_storage_size() != dataset.size * dataset.dtype.itemsize:
        return None
    offset = dataset.id.get_offset()
    return None if offset is None else int(offset)


class NumpyArray(BackendArray):  # type: ignore[misc, unused-ignore]
    """The array of a `.npy` file, read through a memory map when it is indexed.

    Args:
        path: the file.

    Raises:
        InputError: the file vanished, is cut short, or holds objects.
    """

    def __init__(self, path: str) -> None:
        self.path = str(Path(path).resolve())
        mapped = self._map()
        self.shape = tuple(int(n) for n in mapped.shape)
        self.dtype = mapped.dtype.newbyteorder("=")

    def _map(self) -> Any:
        try:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError, MemoryError) as error:
            raise InputError(
                f"'{self.path}' is a truncated or damaged NumPy file, or holds objects, which are never unpickled "
                f"({_first_line(error).rstrip('.')}); save it again with numpy.save."
            ) from error

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        values = self._map()
        if values.shape != self.shape:
            raise InputError(f"'{self.path}' had shape {self.shape} and now {values.shape}; open the data set again.")
        axis = 0
        for pick in tuple(key) + (slice(None),) * (len(self.shape) - len(key)):  # one axis at a time: outer indexing
            values = values[(slice(None),) * axis + (pick,)]
            axis += 0 if isinstance(pick, (int, np.integer)) else 1
        return np.array(values, dtype=self.dtype)


class ComputedArray(BackendArray):  # type: ignore[misc, unused-ignore]
    """An array whose slices along the first axis are computed when they are indexed.

    Args:
        compute: integer positions along the first axis -> values (len(positions), *shape[1:]); a picklable object.
        shape: of the whole array.
        dtype: of the values.
    """

    def __init__(self, compute: Callable[[Any], Any], shape: tuple[int, ...], dtype: str) -> None:
        self.compute = compute
        self.shape = shape
        self.dtype = np.dtype(dtype)

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        picks = tuple(key) + (slice(None),) * (len(self.shape) - len(key))
        single = isinstance(picks[0], (int, np.integer))
        values = self.compute(np.atleast_1d(np.arange(self.shape[0])[picks[0]]))
        axis = 1
        for pick in picks[1:]:  # one axis at a time: outer indexing
            values = values[(slice(None),) * axis + (pick,)]
            axis += 0 if isinstance(pick, (int, np.integer)) else 1
        return np.asarray(values[0] if single else values, dtype=self.dtype)
