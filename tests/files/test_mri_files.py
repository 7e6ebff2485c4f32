"""Measurements of magnetic resonance: every sample in its place, what is left out is counted, what is damaged refused."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scans

from sciml.domains.errors import InputError
from sciml.files import open_dataset
from sciml.files.ismrmrd_header import read_header

STEP = "kspace_encoding_step_1"


def refused(path: Path, **how: Any) -> str:
    with pytest.raises(InputError) as caught:
        open_dataset(path, **how)
    text = str(caught.value)
    assert path.name in text and text.endswith(".") and "\n" not in text
    return text


def image(kspace: Any) -> Any:
    """Along the last axis, k = 0 and x = 0 at n // 2, orthonormal; by the sum itself."""
    n = kspace.shape[-1]
    place = np.arange(n) - n // 2
    return kspace @ np.exp(2j * np.pi * np.outer(place, place) / n) / np.sqrt(n)


def spectrum(picture: Any) -> Any:
    n = picture.shape[-1]
    place = np.arange(n) - n // 2
    return picture @ np.exp(-2j * np.pi * np.outer(place, place) / n) / np.sqrt(n)


# fastMRI


@pytest.mark.parametrize("coils", [4, None])
def test_fastmri(tmp_path: Path, coils: int | None) -> None:
    path = tmp_path / "file1000.h5"
    parts = scans.fastmri(path, coils=coils)
    data = open_dataset(path)
    assert data.kspace.dims == (("slice", "coil", "kx", "ky") if coils else ("slice", "kx", "ky"))
    np.testing.assert_array_equal(data.kspace.values, parts["kspace"])
    np.testing.assert_array_equal(data.kspace.isel(slice=[2, 0], ky=3).values, parts["kspace"][[2, 0]][..., 3])
    target = "reconstruction_rss" if coils else "reconstruction_esc"
    assert data[target].dims == ("slice", "x", "y")
    np.testing.assert_array_equal(data[target].values, parts[target])
    np.testing.assert_array_equal(data.mask.values, np.arange(9) < 7)  # two lines only pad
    assert not parts["kspace"][..., ~data.mask.values].any()
    assert data.attrs["oversampling"] == 2 and data.attrs["image_matrix"] == [6, 6, 1]
    assert data.attrs["acquisition"] == "AXT2" and data.attrs["max"] == 0.5 and data.kspace.dtype == np.complex64
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data)).kspace[1].values, parts["kspace"][1])


def test_fastmri_for_a_challenge_has_a_mask(tmp_path: Path) -> None:
    path = tmp_path / "test.h5"
    parts = scans.fastmri(path, mask=True)
    data = open_dataset(path, names={"kspace": "y"})
    np.testing.assert_array_equal(data.mask.values, parts["mask"] & (np.arange(9) < 7))
    assert set(data) == {"y", "mask"}


def test_fastmri_refuses(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    scans.fastmri(path, kspace=None)
    assert "has no 'kspace'" in refused(path)
    scans.fastmri(path, kspace=np.zeros((3, 4, 12, 9), np.float32))
    assert "must be complex" in refused(path)
    scans.fastmri(path, kspace=scans.signal(12, 9))
    assert "must be complex" in refused(path)
    scans.fastmri(path, reconstruction_rss=np.zeros((2, 6, 6)))
    assert "for 3 slices" in refused(path)
    scans.fastmri(path, mask=True, **{"ismrmrd_header": "<broken"})
    assert "no XML" in refused(path)
    scans.fastmri(path, ismrmrd_header="<a></a>")
    assert "no encoding" in refused(path)
    for wrong, told in (
        (np.ones(5), "5 entries"), (np.zeros(9), "keeps none"), (np.where(np.arange(9) == 2, np.nan, 1.0), "not a number"),
    ):  # fmt: skip
        scans.fastmri(path)
        with h5py.File(path, "r+") as file:
            file["mask"] = wrong
        assert told in refused(path)
    scans.fastmri(path)
    assert "'kspace'" in refused(path, names={"kspce": "y"})
    plain = open_dataset(path, names={"kspace": "kspace"}, dims=("a", "b", "c", "d"))
    assert plain.kspace.dims == ("a", "b", "c", "d")


# ISMRMRD


@pytest.mark.parametrize("padded", [False, True])
def test_lines_lie_where_their_counters_say(tmp_path: Path, padded: bool) -> None:
    """Every second line of a 10 x 14 grid, in another order, with the middle of k-space at step 3 of the file."""
    path, kspace = tmp_path / "scan.h5", scans.signal(3, 10, 14)
    measured = [ky for ky in range(2, 10) if ky % 2 == 0]
    rows = [{"data": kspace[:, ky], "kspace_encode_step_1": ky - 2} for ky in reversed(measured)]
    scans.ismrmrd(path, scans.header((14, 10, 1), limits={STEP: (3, 7)}), rows, padded=padded)
    data = open_dataset(path)
    assert data.kspace.dims == ("coil", "ky", "kx") and data.mask.dims == ("ky",)
    expected = np.where(np.isin(np.arange(10), measured)[:, None], kspace, 0)
    np.testing.assert_array_equal(data.kspace.values, expected)
    np.testing.assert_array_equal(data.mask.values, np.isin(np.arange(10), measured))
    assert data.attrs["oversampling_removed"] == 1 and data.attrs["encoded_matrix"] == [14, 10, 1]


def test_counters_become_axes_and_stay_in_the_file(tmp_path: Path) -> None:
    path, kspace = tmp_path / "scan.h5", scans.signal(2, 3, 4, 2, 5, 6)  # slice, repetition, coil, kz, ky, kx
    rows = [
        {"data": kspace[s, r, :, kz, ky], "slice": s, "repetition": 4 * r, "kspace_encode_step_1": ky}
        | {"kspace_encode_step_2": kz, "segment": ky % 2}
        for ky in range(5)
        for kz in range(2)
        for r in range(3)
        for s in range(2)
        if not (s == 1 and ky == 4)
    ]
    scans.ismrmrd(path, scans.header((6, 5, 2)), rows)
    data = open_dataset(path)
    assert data.kspace.dims == ("slice", "repetition", "coil", "kz", "ky", "kx") and data.mask.dims == ("slice", "ky")
    expected = kspace.copy()
    expected[1, ..., 4, :] = 0
    np.testing.assert_array_equal(data.kspace.values, expected)
    np.testing.assert_array_equal(
        data.kspace.isel(slice=1, repetition=[2, 0], kx=3).values, expected[1][[2, 0], ..., 3]
    )
    np.testing.assert_array_equal(data.mask.values, [[True] * 5, [True] * 4 + [False]])
    again = pickle.loads(pickle.dumps(data.kspace))
    path.rename(tmp_path / "moved.h5")
    with pytest.raises(InputError, match="no file"):
        again[0].values  # noqa: B018


def test_noise_and_other_scans_are_counted_apart(tmp_path: Path) -> None:
    """The covariance of 4 x 500 samples of known mixing: relative error of order 1 / sqrt(2000)."""
    path, kspace = tmp_path / "scan.h5", scans.signal(3, 5, 8)
    mixing = np.array([[1, 0, 0], [0.5j, 2, 0], [0, 0.3, 0.1]])
    noise = [mixing @ scans.signal(3, 500, seed=k + 1) for k in range(4)]
    extra = [{"data": part, "flag": scans.NOISE} for part in noise]
    extra += [{"data": kspace[:, 0] * 9, "flag": scans.NAVIGATOR}] * 2
    extra += [{"data": kspace[:, 0] * 9, "flag": scans.CALIBRATION, "kspace_encode_step_1": 2}]
    scans.ismrmrd(path, scans.header((8, 5, 1)), extra + scans.lines(kspace))
    data = open_dataset(path)
    np.testing.assert_array_equal(data.kspace.values, kspace)
    assert all(part in data.attrs["left_out"] for part in ("4 of noise", "2 of navigator", "1 of calibration"))
    found = data.noise_covariance
    assert found.dims == ("coil", "coil_conjugate")
    both = np.concatenate([part.astype(np.complex64) for part in noise], 1).astype(complex)
    np.testing.assert_allclose(found.values, both @ both.conj().T / 2000, rtol=1e-12)
    truth = 2 * mixing @ mixing.conj().T
    assert np.linalg.norm(found.values - truth) < 0.1 * np.linalg.norm(truth) < np.linalg.norm(found.values.T - truth)


def test_reversed_discarded_and_partial_readouts(tmp_path: Path) -> None:
    path, kspace = tmp_path / "scan.h5", scans.signal(2, 4, 10)
    rows = scans.lines(kspace)
    rows[1] |= {"data": kspace[:, 1, ::-1], "flag": scans.REVERSED}
    scans.ismrmrd(path, scans.header((10, 4, 1)), rows)
    np.testing.assert_array_equal(open_dataset(path).kspace.values, kspace)
    # An echo that begins late: columns 3..9, the middle of k-space (column 5) at sample 4 after two discarded ones.
    waste = np.full((2, 2), 99, np.complex64)
    rows = [row | {"data": np.hstack([waste, row["data"][:, 3:], waste[:, :1]])} for row in scans.lines(kspace)]
    rows = [row | {"center_sample": 4, "discard_pre": 2, "discard_post": 1} for row in rows]
    rows[2] |= {"data": rows[2]["data"][:, ::-1], "flag": scans.REVERSED, "discard_pre": 1, "discard_post": 2}
    scans.ismrmrd(path, scans.header((10, 4, 1), (5, 4, 1), (20.0, 8.0, 1.0), (10.0, 8.0, 1.0)), rows)
    data = open_dataset(path)
    expected = np.where(np.arange(10) >= 3, kspace, 0)
    np.testing.assert_array_equal(data.kspace.values, expected)
    assert data.mask.dims == ("ky", "kx") and data.attrs["oversampling_removed"] == 1  # parts cannot be cropped exactly
    np.testing.assert_array_equal(data.mask.values, np.tile(np.arange(10) >= 3, (4, 1)))


@pytest.mark.parametrize(("wide", "narrow"), [(12, 6), (20, 10), (14, 7), (15, 5)])
def test_oversampling_is_cut_off(tmp_path: Path, wide: int, narrow: int) -> None:
    """Tolerance: complex64 in, complex64 out."""
    path, kspace = tmp_path / "scan.h5", scans.signal(2, 3, wide)
    factor = wide // narrow
    spaces = ((wide, 3, 1), (narrow, 3, 1), (factor * 100.0, 90.0, 1.0), (100.0, 90.0, 1.0))
    scans.ismrmrd(path, scans.header(*spaces), scans.lines(kspace))
    data = open_dataset(path)
    assert data.attrs["oversampling_removed"] == factor and data.kspace.shape == (2, 3, narrow)
    start = wide // 2 - narrow // 2
    whole, part = image(kspace), image(data.kspace.values)
    np.testing.assert_allclose(part, whole[..., start : start + narrow], atol=2e-6)
    assert np.abs(part - whole[..., start - 1 : start - 1 + narrow]).max() > 0.1  # broken twin: one pixel aside
    np.testing.assert_allclose(data.kspace.values, spectrum(whole[..., start : start + narrow]), atol=2e-6)


def test_repeated_places_are_averaged_aloud(tmp_path: Path) -> None:
    path, kspace = tmp_path / "scan.h5", scans.signal(2, 4, 6)
    rows = scans.lines(kspace)
    scans.ismrmrd(path, scans.header((6, 4, 1)), [*rows, rows[1] | {"data": 3 * kspace[:, 1]}])
    with pytest.warns(UserWarning, match="1 of 5 readouts .* mean is taken"):
        found = open_dataset(path).kspace.values
    np.testing.assert_allclose(found[:, 1], 2 * kspace[:, 1], rtol=1e-6)
    np.testing.assert_array_equal(found[:, 0], kspace[:, 0])


def test_a_trajectory_is_kept(tmp_path: Path) -> None:
    path, samples = tmp_path / "spokes.h5", scans.signal(5, 3, 8)
    paths = np.random.default_rng(1).uniform(-0.5, 0.5, (5, 8, 2)).astype(np.float32)
    rows = [{"data": samples[k], "traj": paths[k], "slice": k // 3} for k in range(5)]
    scans.ismrmrd(path, scans.header((8, 8, 1), trajectory="radial"), rows)
    data = open_dataset(path)
    assert data.kspace.dims == ("readout", "coil", "sample") and data.trajectory.dims == (
        "readout",
        "sample",
        "component",
    )
    np.testing.assert_array_equal(data.kspace.values, samples)
    np.testing.assert_array_equal(data.trajectory.values, paths)
    np.testing.assert_array_equal(data.slice.values, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(data.isel(readout=[4, 1]).kspace.values, samples[[4, 1]])
    np.testing.assert_array_equal(data.where(data.slice == 1, drop=True).kspace.values, samples[3:])
    assert data.attrs["trajectory_kind"] == "radial" and "mask" not in data
    scans.ismrmrd(path, scans.header((8, 8, 1), trajectory="radial"), [{"data": samples[0]}])
    assert "components of a trajectory" in refused(path)


def test_ismrmrd_refuses(tmp_path: Path) -> None:
    path, kspace = tmp_path / "scan.h5", scans.signal(2, 4, 6)
    good, rows = scans.header((6, 4, 1)), scans.lines(kspace)
    cases: list[tuple[str, list[dict[str, Any]], str]] = [
        ("<a", rows, "no XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]>" + good, rows, "declares entities"),
        (good.replace("<x>6</x>", "<x>six</x>"), rows, "a number that is none"),
        (good, [row | {"flag": scans.NOISE} for row in rows], "no readout of an image, only 4 of noise"),
        (good, [*rows, {"data": kspace[:1, 0], "kspace_encode_step_1": 1}], r"have [1, 2] coils"),
        (good, [*rows, {"data": kspace[:, 0], "kspace_encode_step_1": 9}], "0 to 9 of a matrix of 4"),
        (scans.header((5, 4, 1)), rows, "of a matrix of 5"),
        (good, [row | {"encoding_space_ref": 2} for row in rows], "refer to encoding 2"),
        (scans.header((1 << 18, 1 << 18, 1)), rows, "asks for a grid"),
    ]
    for xml, given, told in cases:
        scans.ismrmrd(path, xml, given)
        assert told in refused(path), told
    scans.ismrmrd(path, good, rows)
    with h5py.File(path, "r+") as file:
        table = file["dataset/data"][...]
        table[2]["data"] = np.zeros(7, np.float32)
        file["dataset/data"][...] = table
    assert "readout 2" in refused(path)
    scans.ismrmrd(path, good, rows)
    with h5py.File(path, "r+") as file:
        del file["dataset/xml"]
    assert "has no 'dataset/xml'" in refused(path)
    scans.ismrmrd(path, good, [])
    assert "holds no readout" in refused(path)


def test_a_matrix_and_a_middle_that_are_missing_are_said_aloud(tmp_path: Path) -> None:
    path, kspace = tmp_path / "scan.h5", scans.signal(2, 4, 6)
    xml = scans.header((6, 4, 1)).replace("matrixSize", "size")
    scans.ismrmrd(path, xml, scans.lines(kspace))
    with pytest.warns(UserWarning, match=r"gives no matrix; \(6, 4, 1\)"):
        np.testing.assert_array_equal(open_dataset(path).kspace.values, kspace)
    scans.ismrmrd(path, scans.header((6, 4, 1)), [row | {"center_sample": 0} for row in scans.lines(kspace)])
    with pytest.warns(UserWarning, match="they were not moved"):
        np.testing.assert_array_equal(open_dataset(path).kspace.values, kspace)


def test_several_scans_in_one_file(tmp_path: Path) -> None:
    path, kspace = tmp_path / "scan.h5", scans.signal(2, 4, 6)
    scans.ismrmrd(path, scans.header((6, 4, 1)), scans.lines(kspace))
    with h5py.File(path, "r+") as file:
        file.copy("dataset", "first")
        table = file["first/data"][:2]
        del file["first/data"]
        file["first/data"] = table
    with pytest.warns(UserWarning, match="'dataset' with 4 readouts was read"):
        np.testing.assert_array_equal(open_dataset(path).kspace.values, kspace)


def test_headers() -> None:
    found = read_header("f", scans.header((12, 9, 1), (6, 9, 1), (440.0, 300.0, 5.0), (220.0, 300.0, 5.0)))[0]
    assert found.oversampling() == 2 and found.image == (6, 9, 1) and found.encoded_mm == (440.0, 300.0, 5.0)
    apart = read_header("f", scans.header((12, 9, 1), (6, 9, 1), (300.0, 300.0, 5.0), (220.0, 300.0, 5.0)))[0]
    assert apart.oversampling() == 1  # the fields of view do not agree with the matrices
    assert read_header("f", scans.header((12, 9, 1), (6, 9, 1)))[0].encoded_mm is None  # zeros say nothing


# NumPy


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((5, 6), "ky kx"), ((3, 5, 6), "coil ky kx"), ((5, 6, 3), "ky kx coil"), ((2, 3, 5, 6), "slice coil ky kx")],
)
def test_kspace_in_a_numpy_file_is_guessed_aloud(tmp_path: Path, shape: tuple[int, ...], axes: str) -> None:
    path, kspace = tmp_path / "ksp.npy", scans.signal(*shape)
    gone = [slice(None)] * len(shape)
    gone[axes.split().index("ky")] = slice(1, 2)
    kspace[tuple(gone)] = 0
    np.save(path, kspace)
    with pytest.warns(UserWarning, match=f"guessed as \\({', '.join(axes.split())}\\)"):
        data = open_dataset(path)
    assert data.kspace.dims == tuple(axes.split()) and data.kspace.units == "1"
    np.testing.assert_array_equal(data.kspace.values, kspace)
    np.testing.assert_array_equal(data.mask.values, np.tile((np.arange(5) != 1)[:, None], (1, 6)))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data)).kspace[..., 2].values, kspace[..., 2])


def test_numpy_files_with_names_and_dims(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, scans.signal(4, 5, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = open_dataset(path, names={"kspace": "y"}, dims=("ky", "kx", "coil"))
    assert data.y.dims == ("ky", "kx", "coil") and data.mask.dims == ("ky", "kx")
    np.save(path, np.arange(30.0).reshape(5, 6).astype(">f8"))
    assert "does not say" in refused(path)
    found = open_dataset(path, names={"array": "u"}, dims=("x", "y"))
    assert found.u.dtype.isnative and float(found.u[4, 5]) == 29 and "mask" not in found
    assert "name each axis once" in refused(path, names={"array": "u"}, dims=("x",))
    assert "'array'" in refused(path, names={"arry": "u"}, dims=("x", "y"))


def test_numpy_files_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "never unpickled" in refused(path)
    np.save(path, np.zeros((3, 4, 4), complex))
    with pytest.warns(UserWarning, match="guessed"):
        assert "zero everywhere" in refused(path)
    np.save(path, np.full((3, 4, 4), np.nan, complex))
    with pytest.warns(UserWarning, match="guessed"):
        assert "not finite" in refused(path)
    np.save(path, np.zeros((0, 4), complex))
    assert "shape (0, 4)" in refused(path)
    np.save(path, np.array(["a"]))
    assert "not numbers" in refused(path)


@pytest.mark.parametrize("part", [0.97, 0.6, 0.3, 0.05])
def test_truncated(tmp_path: Path, part: float) -> None:
    kspace = scans.signal(3, 16, 20)
    scans.fastmri(tmp_path / "a.h5", slices=8)
    scans.ismrmrd(tmp_path / "b.h5", scans.header((20, 16, 1)), scans.lines(kspace))
    np.save(tmp_path / "c.npy", kspace)
    for path in sorted(tmp_path.iterdir()):
        os.truncate(path, int(path.stat().st_size * part))
        assert "truncated or damaged" in refused(path)


def test_flipped_bytes_of_a_numpy_header(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.npy", np.random.default_rng(0)
    np.save(path, scans.signal(3, 4, 5))
    whole = path.read_bytes()
    for _ in range(150):
        content = bytearray(whole)
        for place in rng.integers(6, 128, 2):
            content[place] = rng.integers(256)
        path.write_bytes(bytes(content))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                open_dataset(path)
            except InputError as error:
                assert "\n" not in str(error)


# Others' readers


def test_agrees_with_the_ismrmrd_package(tmp_path: Path) -> None:
    """A file that their writer makes, sample by sample as their reader finds them."""
    ismrmrd = pytest.importorskip("ismrmrd")
    path, kspace = tmp_path / "theirs.h5", scans.signal(3, 5, 8)
    with ismrmrd.Dataset(str(path), "dataset") as file:
        file.write_xml_header(scans.header((8, 5, 1)).encode())
        for ky in (4, 0, 2, 3):
            row = ismrmrd.Acquisition.from_array(kspace[:, ky])
            row.idx.kspace_encode_step_1 = ky
            row.center_sample = 4
            file.append_acquisition(row)
    data = open_dataset(path)
    with ismrmrd.Dataset(str(path), "dataset", False) as file:
        for index in range(file.number_of_acquisitions()):
            row = file.read_acquisition(index)
            np.testing.assert_array_equal(data.kspace[:, row.idx.kspace_encode_step_1].values, row.data)
    np.testing.assert_array_equal(data.mask.values, [True, False, True, True, True])
