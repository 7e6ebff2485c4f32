"""Miniature files of magnetic resonance and impedance tomography, as their writers make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

NOISE, CALIBRATION, REVERSED, NAVIGATOR = 19, 20, 22, 23
COUNTERS = "kspace_encode_step_1 kspace_encode_step_2 average slice contrast phase repetition set segment".split()
INDEX = [*((name, "<u2") for name in COUNTERS), ("user", "<u2", (8,))]
HEAD: list[Any] = [
    ("version", "<u2"),
    ("flags", "<u8"),
    ("measurement_uid", "<u4"),
    ("scan_counter", "<u4"),
    ("acquisition_time_stamp", "<u4"),
    ("physiology_time_stamp", "<u4", (3,)),
    ("number_of_samples", "<u2"),
    ("available_channels", "<u2"),
    ("active_channels", "<u2"),
    ("channel_mask", "<u8", (16,)),
    ("discard_pre", "<u2"),
    ("discard_post", "<u2"),
    ("center_sample", "<u2"),
    ("encoding_space_ref", "<u2"),
    ("trajectory_dimensions", "<u2"),
    ("sample_time_us", "<f4"),
    ("position", "<f4", (3,)),
    ("read_dir", "<f4", (3,)),
    ("phase_dir", "<f4", (3,)),
    ("slice_dir", "<f4", (3,)),
    ("patient_table_position", "<f4", (3,)),
    ("idx", INDEX),
    ("user_int", "<i4", (8,)),
    ("user_float", "<f4", (8,)),
]
FLOATS = h5py.vlen_dtype(np.dtype("f4"))


def header(
    encoded: tuple[int, ...],
    image: tuple[int, ...] | None = None,
    mm: tuple[float, ...] = (0.0, 0.0, 0.0),
    image_mm: tuple[float, ...] = (0.0, 0.0, 0.0),
    limits: dict[str, tuple[int, int]] | None = None,
    trajectory: str = "cartesian",
) -> str:
    """XML of one encoding; `limits` maps a counter to its middle and largest step."""

    def triple(name: str, values: tuple[float, ...]) -> str:
        return f"<{name}>" + "".join(f"<{a}>{v}</{a}>" for a, v in zip("xyz", values, strict=True)) + f"</{name}>"

    def space(name: str, matrix: tuple[int, ...], lengths: tuple[float, ...]) -> str:
        return f"<{name}>" + triple("matrixSize", matrix) + triple("fieldOfView_mm", lengths) + f"</{name}>"

    bounds = "".join(
        f"<{name}><minimum>0</minimum><maximum>{last}</maximum><center>{middle}</center></{name}>"
        for name, (middle, last) in (limits or {}).items()
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        "<experimentalConditions><H1resonanceFrequency_Hz>1</H1resonanceFrequency_Hz></experimentalConditions><encoding>"
        + space("encodedSpace", encoded, mm)
        + (space("reconSpace", image, image_mm) if image else "")
        + f"<encodingLimits>{bounds}</encodingLimits><trajectory>{trajectory}</trajectory></encoding></ismrmrdHeader>"
    )


def ismrmrd(path: Path, xml: str, rows: list[dict[str, Any]], *, padded: bool = False) -> None:
    """Rows of `data` (coil, sample), optionally `traj` (sample, component) and fields of the head or its counters."""
    head, aligned = np.dtype(HEAD), np.dtype(HEAD, align=True)
    if padded:  # as compilers lay out the structure
        places = [aligned.fields[name][1] for name in head.names]
        formats = [head[name] for name in head.names]
        head = np.dtype({"names": head.names, "formats": formats, "offsets": places, "itemsize": aligned.itemsize})
    kind = np.dtype([("head", head), ("traj", FLOATS), ("data", FLOATS)])
    table = np.zeros(len(rows), dtype=kind)
    for row, given in zip(table, rows, strict=True):
        coils, samples = given["data"].shape
        traj = given.get("traj", np.zeros((samples, 0), np.float32))
        facts = {"number_of_samples": samples, "active_channels": coils, "available_channels": coils, "version": 1}
        facts |= {"center_sample": samples // 2, "trajectory_dimensions": traj.shape[1], "sample_time_us": 5.0}
        for name, value in (facts | {k: v for k, v in given.items() if k not in ("data", "traj", "flag")}).items():
            if name in COUNTERS:
                row["head"]["idx"][name] = value
            else:
                row["head"][name] = value
        row["head"]["flags"] = 1 << (given["flag"] - 1) if "flag" in given else 0
        row["traj"] = traj.astype(np.float32).reshape(-1)
        row["data"] = np.ascontiguousarray(given["data"], dtype=np.complex64).view(np.float32).reshape(-1)
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset/xml", data=np.array([xml.encode()], dtype=object), dtype=h5py.string_dtype())
        file["dataset/data"] = table


def signal(*shape: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def lines(kspace: Any, **facts: Any) -> list[dict[str, Any]]:
    """One row per line of k-space (coil, ky, kx)."""
    return [{"data": kspace[:, ky], "kspace_encode_step_1": ky, **facts} for ky in range(kspace.shape[1])]


def fastmri(
    path: Path,
    slices: int = 3,
    coils: int | None = 4,
    shape: tuple[int, int] = (12, 9),
    *,
    mask: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """A volume of an uneven grid whose last two lines only pad; returns its arrays."""
    middle = (coils,) if coils else ()
    kspace = signal(slices, *middle, *shape)
    kspace[..., -2:] = 0
    image = np.abs(signal(slices, 6, 6, seed=1))
    lines_measured = shape[1] - 2
    limits = {"kspace_encoding_step_1": (shape[1] // 2, lines_measured - 1)}
    xml = header((shape[0], shape[1], 1), (6, 6, 1), (440.0, 220.0, 5.0), (220.0, 220.0, 5.0), limits)
    target = "reconstruction_rss" if coils else "reconstruction_esc"
    parts: dict[str, Any] = {"kspace": kspace, "ismrmrd_header": xml, target: image}
    if mask:
        parts["mask"] = np.arange(shape[1]) % 3 == 0
        del parts[target]
    parts |= changes
    with h5py.File(path, "w") as file:
        for name, value in parts.items():
            if value is not None:
                file[name] = np.bytes_(value) if isinstance(value, str) else value
        file.attrs["acquisition"], file.attrs["max"], file.attrs["patient_id"] = "AXT2", 0.5, "0001"
    return parts


def potentials(current: Any, electrodes: int) -> Any:
    """Potentials (injection, electrode) of a homogeneous disc of radius 1 for point currents; the own one is regularised."""
    angle = 2 * np.pi * np.arange(electrodes) / electrodes
    away = np.abs(np.exp(1j * angle)[:, None] - np.exp(1j * angle))
    return current @ (-np.log(np.where(away == 0, 1e-2, away)) / np.pi)


def ktc(
    electrodes: int = 32, *, empty: bool = False, gone: tuple[int, ...] = (), milliamperes: float = 1.5
) -> dict[str, Any]:
    """A measurement of the challenge: pairs of even electrodes, differences of neighbours, `gone` electrodes removed."""
    first = [(k, k + 2) for k in range(0, electrodes - 2, 2)] + [(0, k) for k in range(4, electrodes, 4)]
    current = np.zeros((len(first), electrodes))
    for row, (a, b) in zip(current, first, strict=True):
        row[a], row[b] = milliamperes, -milliamperes
    patterns = np.eye(electrodes)[:-1] - np.eye(electrodes, k=1)[:-1]
    voltage = potentials(current / milliamperes, electrodes) @ patterns.T
    voltage[(current[:, list(gone)] != 0).any(1)] = np.nan
    voltage[:, (patterns[:, list(gone)] != 0).any(1)] = np.nan
    names = ("Uelref", "Injref", "Mpat") if empty else ("Uel", "Inj", "Mpat")
    return dict(zip(names, (voltage.reshape(-1, 1), current.T, patterns.T.astype(np.int16)), strict=True))


def finnish(rows: bool = True, sign: float = 1.0) -> dict[str, Any]:
    """A file of the Finnish archive; the patterns are the rows or the columns of their square matrix."""
    shift = np.eye(16) - np.roll(np.eye(16), 1, axis=1)  # e_k - e_{k+1} in row k
    matrix = shift if rows else shift.T
    current = 2 * np.vstack([shift, np.eye(16)[:-1] - np.eye(16)[1:][::-1]])
    current = current[np.abs(current).sum(1) > 0]
    voltage = sign * potentials(current, 16) @ shift.T
    return {"CurrentPattern": current.T, "MeasPattern": matrix, "Uel": voltage.T}


def save(path: Path, arrays: dict[str, Any], **changes: Any) -> None:
    """MATLAB v5; a change to None takes the array away."""
    kept = {name: value for name, value in {**arrays, **changes}.items() if value is not None}
    scipy.io.savemat(path, kept, appendmat=False)
