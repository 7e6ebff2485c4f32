"""Miniature files in the layouts of others, as their writers make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch


def values(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pdebench_darcy(path: Path, count: int = 7, n: int = 6) -> None:
    with h5py.File(path, "w") as file:
        file["nu"] = values(count, n, n + 1)
        file["tensor"] = values(count, 1, n, n + 1, seed=1)
        file["x-coordinate"] = np.linspace(0, 1, n, dtype=np.float32)
        file["y-coordinate"] = np.linspace(0, 1, n + 1, dtype=np.float32)
        file.attrs["beta"] = 0.1


def pdebench_advection(path: Path, count: int = 5, times: int = 4, n: int = 8) -> None:
    with h5py.File(path, "w") as file:
        file["tensor"] = values(count, times, n)
        file["x-coordinate"] = (np.arange(n) + 0.5) / n
        file["t-coordinate"] = np.linspace(0, 2, times + 1)
        file.attrs["beta"] = np.array([0.4])
        file.attrs["note"] = np.bytes_(b"text")


def pdebench_flow(path: Path, count: int = 3, times: int = 4, shape: tuple[int, ...] = (4, 5, 6)) -> None:
    with h5py.File(path, "w") as file:
        for index, name in enumerate(("density", "pressure", "Vx", "Vy", "Vz")[: 2 + len(shape)]):
            file[name] = values(count, times, *shape, seed=index)
        for axis, n in zip("xyz", shape, strict=False):
            file[f"{axis}-coordinate"] = (np.arange(n) + 0.5) / n
        file["t-coordinate"] = np.linspace(0, 1, times + 1)
        file.attrs["eta"], file.attrs["zeta"], file.attrs["M"] = 0.01, 0.01, 0.1


def plain_hdf5(path: Path, count: int = 7, n: int = 6) -> None:
    with h5py.File(path, "w") as file:
        file["nu"] = values(count, n, n + 1)
        file["f"] = values(n, n + 1, seed=1)
        file["tensor"] = values(count, 1, n, n + 1, seed=2)
        file["scale"] = 3.0
        file.create_dataset("packed", data=values(count, n, n + 1, seed=3), chunks=(2, 3, 3), compression="gzip")
        file["swapped"] = values(count, n, n + 1, seed=4).astype(">f4")
        file["label"] = "text"


def matlab_reversed(path: Path, arrays: dict[str, Any]) -> None:
    """MATLAB v7.3: HDF5 behind a 512-byte header, axes last to first."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            stored = np.ascontiguousarray(array.T)
            if np.iscomplexobj(stored):
                pair = np.zeros(stored.shape, dtype=[("real", "f8"), ("imag", "f8")])
                pair["real"], pair["imag"] = stored.real, stored.imag
                stored = pair
            file[name] = stored
            file[name].attrs["MATLAB_class"] = np.bytes_(b"double")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + b"\0" * 8 + b"\x00\x02IM")


def torch_pairs(path: Path, count: int = 7, n: int = 6) -> None:
    start = torch.from_numpy(values(count, n, n) > 0)
    torch.save({"x": start, "y": torch.from_numpy(values(count, n, n, seed=1))}, path)
