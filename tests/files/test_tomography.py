"""Measured CT: line integrals, their variance, what was not measured, and where the axis of rotation is."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import layouts
import numpy as np
import pytest
import scipy.io

from sciml.domains.errors import InputError
from sciml.files import open_dataset, rotation_axis
from sciml.files.formats import matlab_five
from sciml.files.tomography import Transmission, air_ratio

REAL = Path(os.environ.get("SCIML_REAL_DATA", "no such folder"))
real = pytest.mark.skipif(not REAL.is_dir(), reason="SCIML_REAL_DATA does not name the folder of measured data")


def test_data_exchange_holds_line_integrals(tmp_path: Path) -> None:
    path = tmp_path / "discs.h5"
    exact = layouts.data_exchange(path)
    data = open_dataset(path)
    assert data.sinogram.dims == data.variance.dims == data.measured.dims == ("slice", "view", "bin")
    assert data.sinogram.shape == (2, 60, 120) and data.sinogram.dtype == np.float64 and data.measured.dtype == bool
    np.testing.assert_allclose(data.angle, np.arange(60) * np.pi / 60, rtol=1e-14)
    np.testing.assert_allclose(data.position, np.arange(120) - 59.5)
    assert data.angle.attrs["units"] == "rad" and data.position.attrs["units"] == "pixel"
    assert data.attrs["geometry"] == "parallel" and data.attrs["bad_pixels"] == "none"
    assert data.attrs["title"] == "discs" and data.attrs["source"] == "discs.h5"
    with h5py.File(path) as file:
        counts, white, dark = (
            file[f"exchange/{name}"][...].astype(float) for name in ("data", "data_white", "data_dark")
        )
    by_hand = -np.log((counts - dark.mean(0)) / (white.mean(0) - dark.mean(0)))
    np.testing.assert_allclose(data.sinogram.values, by_hand.swapaxes(0, 1), rtol=1e-12)
    # the mean over the air is known to 0.7 % / sqrt(frames); the flicker of the mean white frame adds 2 % / sqrt(10)
    assert abs(float((data.sinogram - exact).mean())) < 4 * 0.02 / np.sqrt(10)
    np.testing.assert_array_equal(data.sinogram[1, 3:5, [7, 3]].values, data.sinogram.values[1, 3:5][:, [7, 3]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data)).variance[0].values, data.variance.values[0])


def test_names_rename_and_dims_read_the_arrays_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "discs.h5"
    layouts.data_exchange(path)
    assert "data" in open_dataset(path, names={"sinogram": "data"})
    with pytest.raises(InputError, match="'sinogram'"):
        open_dataset(path, names={"sinogramm": "data"})
    raw = open_dataset(path, names={"exchange/data": "counts"}, dims=("view", "y", "x"))
    assert raw.counts.dtype == np.float32 and raw.counts.shape == (60, 2, 120)


SCANS = {
    "half a turn, one step short": np.arange(60) * 3.0,
    "half a turn, both ends": np.linspace(0, 180, 61),
    "a whole turn": np.arange(90) * 4.0,
    "backwards from elsewhere": 217 - np.arange(60) * 3.0,
    "uneven": np.sort(np.random.default_rng(5).uniform(0, 360, 80)),
}


@pytest.mark.parametrize("degrees", SCANS.values(), ids=SCANS.keys())
@pytest.mark.parametrize("centre", [-6.3, 9.75])
def test_axis_of_rotation(tmp_path: Path, degrees: Any, centre: float) -> None:
    """0.2 bins: a quarter of the smallest disc's radius would be 1; noise of 0.7 % alone gives 0.02 to 0.1."""
    path = tmp_path / "discs.h5"
    layouts.data_exchange(path, bins=131, centre=centre, degrees=degrees)
    data = open_dataset(path)
    assert data.attrs["centre"] == pytest.approx(centre, abs=0.2)
    assert data.attrs["centre_spread"] < 0.4
    assert "opposing views" in data.attrs["centre_method"] and "first moment" in data.attrs["centre_method"]


def test_every_estimate_follows_the_axis_and_a_wrong_step_is_noticed() -> None:
    angles = np.arange(60) * np.pi / 60
    for centre in (-8.4, 0.0, 3.2):
        p = layouts.shadows(angles, 131, centre)
        edges = rotation_axis.air(p)
        assert edges is not None
        assert rotation_axis.opposing_views(p, angles) == pytest.approx(centre, abs=0.05)
        assert rotation_axis.double_wedge(p, angles, edges, centre + 0.8) == pytest.approx(centre, abs=0.05)
        assert rotation_axis.first_moment(p, angles) == pytest.approx(centre, abs=0.01)
    # the broken twin: the scan is said to be whole, and what the object moves in the missing step is left in
    p = layouts.shadows(angles, 131, 3.2)
    assert rotation_axis.opposing_views(p, angles) == pytest.approx(3.2, abs=0.02)
    whole = rotation_axis.opposing_views(p, np.linspace(0, np.pi, 60))
    assert whole is not None and abs(whole - 3.2) > 0.06


def test_first_moment_hangs_on_the_air_and_the_others_do_not() -> None:
    angles = np.arange(60) * np.pi / 60
    p = layouts.shadows(angles, 131, -8.4) + 0.05
    moment, sharp = rotation_axis.first_moment(p, angles), rotation_axis.opposing_views(p, angles)
    assert moment is not None and abs(moment + 8.4) > 0.3
    assert sharp == pytest.approx(-8.4, abs=0.05)
    found = rotation_axis.find(p[None], angles)  # with the air taken off
    assert found.centre == pytest.approx(-8.4, abs=0.05) and "first moment -8.4" in found.method


def test_an_object_larger_than_the_detector(tmp_path: Path) -> None:
    path = tmp_path / "large.h5"
    layouts.data_exchange(path, bins=70, centre=2.5)
    data = open_dataset(path)
    assert data.attrs["centre"] == pytest.approx(2.5, abs=0.2) and "wedge" not in data.attrs["centre_method"]
    assert np.isnan(data.attrs["air_ratio"])


def test_less_than_half_a_turn_leaves_the_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "limited.h5"
    layouts.data_exchange(path, degrees=np.arange(0, 120, 2.0))
    data = open_dataset(path)
    assert data.attrs["centre"] == pytest.approx(-6.3, abs=0.5)
    assert data.attrs["centre_method"].startswith("first moment")
    layouts.data_exchange(path, degrees=[10.0])
    with pytest.warns(UserWarning, match="no axis of rotation"):
        data = open_dataset(path)
    assert data.attrs["centre"] == 0 and np.isnan(data.attrs["centre_spread"])


def test_variance_is_that_of_repeated_scans() -> None:
    """Ratios of 4000 repetitions are known to sqrt(2 / 4000) = 2.2 %, their mean over 60 bins to 0.3 %.

    What the linearised logarithm leaves out is of the size of the variance, below 0.4 %: together 2 %. Dark and white
    frames are drawn again too, so that every term counts.
    """
    rng = np.random.default_rng(1)
    gain, read, whites, darks, times, bins = 2.5, 1500.0, 3, 1, 4000, 60
    beam, shadow = np.linspace(4000, 7500, bins), np.linspace(1500, 2500, bins)

    def counts(signal: Any, *shape: int) -> Any:
        quanta = rng.poisson(signal / gain, (*shape, bins))
        return gain * quanta + 500 + np.sqrt(read) * rng.standard_normal((*shape, bins))

    found = [
        Transmission(counts(beam, whites).mean(0), counts(0 * beam, darks).mean(0), whites, darks, gain, read, "")
        for _ in range(times)
    ]
    seen = np.stack([one.integrals(counts(shadow)) for one in found]).var(0, ddof=1)
    known = Transmission(beam + 500, 0 * beam + 500, whites, darks, gain, read, "")
    assert np.mean(seen / known.variance(shadow + 500)) == pytest.approx(1, abs=0.02)
    for twin in (
        replace(known, gain=1.0),
        replace(known, read=0.0),
        replace(known, whites=99),
        replace(known, darks=99),
    ):
        assert np.mean(seen / twin.variance(shadow + 500)) > 1.05


@pytest.mark.parametrize("gain", [0.3, 1.0, 4.0])
def test_gain_and_air(tmp_path: Path, gain: float) -> None:
    """240 pixels with 9 degrees of freedom: the median's standard error is 1.25 sqrt(2 / 9 / 240) = 4 %."""
    path = tmp_path / "discs.h5"
    layouts.data_exchange(path, gain=gain)
    data = open_dataset(path)
    assert data.attrs["gain"] == pytest.approx(gain, rel=0.12)
    assert data.attrs["air_ratio"] == pytest.approx(1, abs=0.15)
    assert data.attrs["air_ratio_successive"] == pytest.approx(1, abs=0.15)


def test_drift_shows_in_the_first_ratio_alone(tmp_path: Path) -> None:
    path = tmp_path / "discs.h5"
    layouts.data_exchange(path)
    with h5py.File(path, "r+") as file:
        file["exchange/data"][...] *= np.linspace(0.97, 1.03, 60)[:, None, None].astype(np.float32)
    data = open_dataset(path)
    assert data.attrs["air_ratio"] > 3 and data.attrs["air_ratio_successive"] == pytest.approx(1, abs=0.2)


def test_one_white_frame_or_equal_ones_say_that_the_gain_is_assumed(tmp_path: Path) -> None:
    path = tmp_path / "discs.h5"
    layouts.data_exchange(path, frames=1)
    assert open_dataset(path).attrs["gain_method"].startswith("assumed 1")
    layouts.data_exchange(path)
    with h5py.File(path, "r+") as file:
        file["exchange/data_white"][...] = file["exchange/data_white"][0]
    assert open_dataset(path).attrs["gain_method"].startswith("assumed 1")


def test_bad_pixels_are_named_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "discs.h5"
    layouts.data_exchange(path)
    with h5py.File(path, "r+") as file:
        file["exchange/data"][4, 1, 17] = np.nan
        file["exchange/data"][5, 0, 60] = 20.0  # below the dark frame
        file["exchange/data_white"][:, 0, 33] = 50.0  # sees no beam
        file["exchange/data_dark"][2, 1, 80] = np.inf
    with np.errstate(all="raise"):
        data = open_dataset(path)
        measured = data.measured.values
    assert data.attrs["bad_pixels"] == (
        "122: slice 0 bin 33 in all views, slice 1 bin 80 in all views, slice 1 view 4 bin 17, slice 0 view 5 bin 60"
    )
    assert (
        (~measured).sum() == 122 and not measured[1, 4, 17] and not measured[0, 5, 60] and not measured[0, :, 33].any()
    )
    np.testing.assert_array_equal(np.isfinite(data.sinogram.values), measured)
    np.testing.assert_array_equal(np.isfinite(data.variance.values), measured)
    assert data.attrs["centre"] == pytest.approx(-6.3, abs=0.2)
    with h5py.File(path, "r+") as file:
        file["exchange/data"][:20, 0, 5] = -1.0
    text = open_dataset(path).attrs["bad_pixels"]
    assert text.startswith("142: ") and text.endswith(", ...")


def test_units(tmp_path: Path) -> None:
    path = tmp_path / "discs.h5"
    layouts.data_exchange(path)
    with h5py.File(path, "r+") as file:
        file["measurement/instrument/detector/x_pixel_size"] = 5.0
        file["measurement/instrument/detector/x_pixel_size"].attrs["units"] = "um"
        file["exchange/theta"][...] = np.deg2rad(file["exchange/theta"][...])
        file["exchange/theta"].attrs["units"] = "rad"
    data = open_dataset(path)
    assert data.position.attrs["units"] == data.attrs["centre_unit"] == "m"
    assert float(data.position[-1]) == pytest.approx(59.5 * 5e-6)
    assert data.attrs["centre"] == pytest.approx(-6.3 * 5e-6, abs=1e-6)
    np.testing.assert_allclose(data.angle, np.arange(60) * np.pi / 60, rtol=1e-12)
    with h5py.File(path, "r+") as file:
        file["exchange/theta"].attrs["units"] = "degrees"
        file["measurement/instrument/detector/x_pixel_size"].attrs["units"] = "furlong"
    with pytest.warns(UserWarning) as caught:
        assert open_dataset(path).position.attrs["units"] == "pixel"
    text = " ".join(str(item.message) for item in caught)
    assert "taken as degrees" in text and "furlong" in text


@pytest.mark.parametrize("write", [layouts.helsinki_five, layouts.helsinki_reversed])
def test_fan_scans_of_both_matlab_formats(tmp_path: Path, write: Callable[..., None]) -> None:
    path = tmp_path / "fan.mat"
    write(path)
    data = open_dataset(path)
    expected = layouts.helsinki()["sinogram"]
    assert data.sinogram.dims == ("view", "bin")
    np.testing.assert_array_equal(data.sinogram.values, expected)
    np.testing.assert_allclose(data.angle, np.deg2rad(75 + 0.5 * np.arange(9)), rtol=1e-14)
    np.testing.assert_allclose(data.position, 0.2 * (np.arange(14) - 6.5))
    facts = {"geometry": "fan", "source_to_origin": 410.66, "source_to_detector": 553.74, "pitch": 0.2, "title": "disc"}
    assert {name: data.attrs[name] for name in facts} == facts
    expected[2, 5] = np.nan
    facts = {**layouts.helsinki()["parameters"], "distanceUnit": "cm"}
    write(path, sinogram=expected, parameters=facts)
    data = open_dataset(path, names={"sinogram": "data"})
    assert data.attrs["source_to_origin"] == pytest.approx(4106.6)
    assert data.attrs["bad_pixels"] == "1: slice 0 view 2 bin 5" and not data.measured.values[2, 5]


def test_structures_agree_with_scipy(tmp_path: Path) -> None:
    path = tmp_path / "nested.mat"
    inner = {"text": "Größe µ", "empty": np.zeros((0, 0)), "flag": np.array([[True, False]]), "z": np.array([1 + 2j])}
    whole = {"deep": {"deeper": inner}, "cells": np.array([1, "a"], dtype=object), "u": np.arange(6).reshape(2, 3)}
    for packed in (False, True):
        scipy.io.savemat(path, {"s": whole, "plain": np.eye(2)}, do_compression=packed)
        found = matlab_five.structures(str(path))
        assert list(found) == ["s"] and matlab_five.fields(str(path)) == {"s": ("deep", "cells", "u")}
        expected = scipy.io.loadmat(path)["s"][0, 0]
        deeper = expected["deep"][0, 0]["deeper"][0, 0]
        ours = found["s"]["deep"]["deeper"]
        assert ours["text"] == deeper["text"][0] and found["s"]["cells"] is None
        for name in ("empty", "flag", "z"):
            np.testing.assert_array_equal(ours[name], deeper[name])
        np.testing.assert_array_equal(found["s"]["u"], expected["u"])
        assert list(matlab_five.arrays(str(path))) == ["plain"]
    nest: dict[str, Any] = {"x": 1.0}
    for _ in range(20):
        nest = {"x": nest}
    scipy.io.savemat(path, {"s": nest})
    with pytest.raises(InputError, match="nested more than 16 deep"):
        matlab_five.structures(str(path))


def backprojected(p: Any, angles: Any, axis: float, cells: int = 160, cell: float = 2.0) -> Any:
    """Filtered back-projection (Kak, Slaney 1988, ch. 3) inside the circle, in bins; `axis` is an index of bins."""
    length = 2 * p.shape[1]
    frequency = np.fft.rfftfreq(length)
    rows = np.fft.irfft(np.fft.rfft(p, length, axis=1) * frequency * np.cos(np.pi * frequency) ** 2, length, axis=1)
    at = (np.arange(cells) - (cells - 1) / 2) * cell
    x, y = (grid[at[:, None] ** 2 + at**2 < 155**2] for grid in np.meshgrid(at, at, indexing="ij"))
    image = np.zeros(x.shape)
    for row, angle in zip(rows, angles, strict=True):
        image += np.interp(x * np.cos(angle) + y * np.sin(angle) + axis, np.arange(p.shape[1]), row[: p.shape[1]])
    return image * np.pi / len(angles)


@real
def test_the_tooth() -> None:
    """Measured counts. The axis lies where the reconstruction is least negative; others report 296 for this file."""
    data = open_dataset(REAL / "ct_tooth" / "tooth.h5")
    assert dict(data.sizes) == {"slice": 2, "view": 181, "bin": 640} and data.attrs["bad_pixels"] == "none"
    axis = data.attrs["centre"] + 319.5
    assert axis == pytest.approx(296, abs=0.5) and data.attrs["centre_spread"] < 0.3
    p, angles = data.sinogram.values[0], data.angle.values
    trials = axis + np.arange(-2, 2.01, 0.5)
    below = [-np.minimum(backprojected(p, angles, c), 0).sum() for c in trials]
    bend, slope, _ = np.polyfit(trials - axis, below, 2)
    assert bend > 0 and abs(slope / (2 * bend)) < 0.3
    # counting explains what changes from one view to the next to 10 %; over the scan the beam drifts
    assert data.attrs["air_ratio_successive"] == pytest.approx(1, abs=0.1)
    assert 1 < data.attrs["air_ratio"] < 1.6
    scaled = air_ratio(p, data.variance.values[0] * 2, (114, 433))  # the broken twin: a gain twice too large
    assert scaled[1] < 0.6


@real
def test_the_helsinki_discs() -> None:
    data = open_dataset(REAL / "ct_htc2022" / "tb_subsample_90.mat")
    assert dict(data.sizes) == {"view": 181, "bin": 560} and bool(data.measured.all())
    assert float(data.sinogram.max()) == pytest.approx(1.931956, abs=1e-6)
    np.testing.assert_allclose(np.rad2deg(data.angle), np.arange(75, 165.1, 0.5))
    assert data.attrs["pitch"] == 0.2 and data.attrs["title"] == "htc2022_tb_"
