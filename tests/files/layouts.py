"""Miniature files in the layouts of others, as their writers make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
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


DISCS = ((4, 6, 36, 0.02), (12, 9, 11, 0.03), (-20, 4, 7, -0.01), (3, -22, 4, 0.05))
"""Centre, radius (bins) and attenuation of each disc of the phantom."""


def shadows(angles: Any, bins: int, centre: float, scale: float = 1.0) -> Any:
    """Line integrals (view, bin) of the discs, averaged over each bin; the axis is `centre` bins from the middle."""
    position = np.arange(bins) - (bins - 1) / 2
    found = np.zeros((len(angles), bins))
    for x, y, radius, mass in DISCS:
        away = scale * (x * np.cos(angles) + y * np.sin(angles))[:, None] + centre
        for part in (np.arange(8) - 3.5) / 8:
            chord = (scale * radius) ** 2 - (position + part - away) ** 2
            found += 2 * mass * np.sqrt(np.maximum(chord, 0)) / 8
    return found


def data_exchange(
    path: Path,
    views: int = 60,
    rows: int = 2,
    bins: int = 120,
    centre: float = -6.3,
    gain: float = 0.7,
    frames: int = 10,
    seed: int = 0,
    degrees: Any = None,
    scale: float = 1.0,
) -> Any:
    """Counts of a noisy detector behind the discs; returns the exact line integrals (view, bin)."""
    rng = np.random.default_rng(seed)
    degrees = np.arange(views) * 180 / views if degrees is None else np.asarray(degrees)
    exact = shadows(np.deg2rad(degrees), bins, centre, scale)
    beam = 20000 * (1 + 0.2 * np.cos(np.arange(bins) / 9)) * np.ones((rows, 1))
    dark = 100 + 10 * rng.random((rows, bins))

    def counts(signal: Any) -> Any:
        return (gain * rng.poisson(signal / gain) + dark + 3 * rng.standard_normal(signal.shape)).astype(np.float32)

    flicker = 1 + 0.02 * rng.standard_normal(frames)[:, None, None]
    with h5py.File(path, "w") as file:
        file["exchange/data"] = counts(beam * np.exp(-exact)[:, None])
        file["exchange/data_white"] = counts(beam * flicker)
        file["exchange/data_dark"] = counts(np.zeros((frames, rows, bins)))
        file["exchange/theta"] = degrees.astype(float)
        file["exchange/data"].attrs["axes"] = np.bytes_(
            b"theta:y:x"
        )  # HDF5 can hang on a damaged heap of text of any length
        file["exchange/theta"].attrs["units"] = np.bytes_(b"degrees")
        file["exchange/title"] = np.bytes_(b"discs")
    return exact


def helsinki(views: int = 9, bins: int = 14) -> dict[str, Any]:
    """The structure of a fan-beam scan, as the challenge writes it."""
    return {
        "type": "2d",
        "sinogram": values(views, bins).astype(float),
        "parameters": {
            "projectName": "disc",
            "distanceSourceOrigin": 410.66,
            "distanceSourceDetector": 553.74,
            "distanceUnit": "mm",
            "angles": 75 + 0.5 * np.arange(views),
            "pixelSize": 0.05,
            "pixelSizePost": 0.2,
            "freeRayAtDetector": np.array([1, 128, 1, 128], dtype=np.uint8),
        },
    }


def helsinki_five(path: Path, **changes: Any) -> None:
    scipy.io.savemat(path, {"CtDataLimited": {**helsinki(), **changes}}, appendmat=False)


def helsinki_reversed(path: Path, **changes: Any) -> None:
    """The same in v7.3: groups for structures, axes last to first, text as numbers."""

    def write(group: Any, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            if isinstance(value, dict):
                write(group.create_group(name), value)
                group[name].attrs["MATLAB_class"] = np.bytes_(b"struct")
            elif isinstance(value, str):
                group[name] = np.frombuffer(value.encode("utf-16-le"), np.uint16)[:, None]
                group[name].attrs["MATLAB_class"] = np.bytes_(b"char")
            else:
                group[name] = np.ascontiguousarray(np.atleast_2d(value).T)
                group[name].attrs["MATLAB_class"] = np.bytes_(b"double")

    matlab_reversed(path, {})
    with h5py.File(path, "r+") as file:
        write(file, {"CtDataFull": {**helsinki(), **changes}})
