"""Measurements of others, read: every value as the usual libraries find it, and every axis the right way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sciml.files import open_dataset


def picture(kspace: Any) -> Any:
    """Root of the sum over the coils of the squared images."""
    axes = (-2, -1)
    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=axes), norm="ortho"), axes=axes)
    return np.sqrt((np.abs(coils) ** 2).sum(0))


def test_brain_of_eight_coils(real_data: Path) -> None:
    """The head fills the middle of the picture: four fifths of its energy lie in the ellipse of half its area."""
    path = real_data / "mri_kspace" / "cartesian_ksp.npy"
    with pytest.warns(UserWarning, match=r"guessed as \(coil, ky, kx\)"):
        data = open_dataset(path)
    np.testing.assert_array_equal(data.kspace.values, np.load(path))
    assert data.kspace.shape == (8, 230, 180) and float(data.mask.mean()) == pytest.approx(0.124, abs=1e-3)
    y, x = (np.linspace(-1, 1, n) for n in (230, 180))
    inside = y[:, None] ** 2 + x**2 < 2 / np.pi
    found = picture(data.kspace.values) ** 2
    assert found[inside].sum() > 0.8 * found.sum()
    assert found[np.roll(inside, (115, 90), (0, 1))].sum() < 0.6 * found.sum()  # broken twin: k = 0 in the corner


def test_simulated_brain_in_ismrmrd(real_data: Path) -> None:
    path = real_data / "mri_ismrmrd" / "acqDataBrainSim100.h5"
    data = open_dataset(path)
    assert data.kspace.dims == ("coil", "ky", "kx") and data.kspace.shape == (1, 256, 256) and bool(data.mask.all())
    with h5py.File(path, "r") as file:
        for index in (0, 1, 100, 255):
            row = file["dataset/data"][index]
            expected = row["data"][0::2] + 1j * row["data"][1::2]
            line = data.kspace[0, int(row["head"]["idx"]["kspace_encode_step_1"])].values
            np.testing.assert_array_equal(line, expected.astype(np.complex64))
    assert np.unravel_index(np.abs(data.kspace.values[0]).argmax(), (256, 256)) == (128, 128)
    head = picture(data.kspace.values)
    corner = np.roll(head, (20, 20), (0, 1))[:40, :40]
    assert np.sqrt(np.mean(corner**2)) < 0.1 * np.sqrt(np.mean(head**2))  # air around the head


def test_tank_stands_as_it_was_measured(real_data: Path) -> None:
    """One linear step from the homogeneous disc, with point electrodes, on 40 x 40 pixels: its correlation with the published
    segmentation (conductive +1, resistive -1) is 0.76 and 0.77 as the axes are named, and lower in the seven other ways to
    turn and mirror the segmentation (at most 0.65).
    """
    folder = real_data / "eit_ktc2023"
    empty = open_dataset(folder / "ref.mat")
    n = 40
    middle = (np.arange(n) + 0.5) / n * 2 - 1
    x, y = np.meshgrid(middle, middle, indexing="ij")
    inside = x**2 + y**2 < 0.97**2
    angle = empty.electrode_angle.values
    away = np.stack([x[inside], y[inside]], 1)[:, None] - np.stack([np.cos(angle), np.sin(angle)], 1)
    gradient = -away / (away**2).sum(-1, keepdims=True)  # of the potential of each electrode, but for a factor
    driven = np.einsum("ie,ped->pid", empty.current_pattern.values, gradient)
    seen = np.einsum("me,ped->pmd", empty.voltage_pattern.values, gradient)
    matrix = -np.einsum("pid,pmd->imp", driven, seen).reshape(-1, int(inside.sum()))
    normal = matrix.T @ matrix
    normal += 1e-2 * np.trace(normal) / len(normal) * np.eye(len(normal))
    for k in (1, 2):
        change = (open_dataset(folder / f"data{k}.mat").voltage - empty.voltage).values.ravel()
        found = np.linalg.solve(normal, matrix.T @ change)
        truth = open_dataset(folder / f"true{k}.mat").truth.transpose("x", "y").sortby(["x", "y"])
        nearest = truth.sel(x=0.115 * middle, y=0.115 * middle, method="nearest").values
        signed = np.array([0.0, -1.0, 1.0])[nearest]
        turned = [np.rot90(part, turns) for part in (signed, signed.T) for turns in range(4)]
        likeness = [float(np.corrcoef(part[inside], found)[0, 1]) for part in turned]
        assert likeness[0] > 0.7 and max(likeness[1:]) < likeness[0] - 0.1
