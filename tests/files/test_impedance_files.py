"""Measurements of impedance tomography: names, units, missing voltages, signs, and what is refused."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
import scans
import scipy.io

from sciml.domains.errors import InputError
from sciml.files import open_dataset
from sciml.files.formats import matlab_five
from sciml.files.impedance import potentials, power


def refused(path: Path, **how: Any) -> str:
    with pytest.raises(InputError) as caught:
        open_dataset(path, **how)
    text = str(caught.value)
    assert path.name in text and text.endswith(".") and "\n" not in text
    return text


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("reversed_axes", [False, True])
def test_a_measurement_of_the_challenge(tmp_path: Path, empty: bool, reversed_axes: bool) -> None:
    path, arrays = tmp_path / "data1.mat", scans.ktc(empty=empty)
    (layouts.matlab_reversed if reversed_axes else scans.save)(path, arrays)
    data = open_dataset(path)
    voltage, current, patterns = arrays.values()
    assert data.voltage.dims == data.measured.dims == ("injection", "measurement")
    assert data.current_pattern.dims == ("injection", "electrode")
    assert data.voltage_pattern.dims == ("measurement", "electrode")
    np.testing.assert_array_equal(data.voltage.values.reshape(-1, 1), voltage)
    np.testing.assert_array_equal(data.current_pattern.values, current.T)
    np.testing.assert_array_equal(data.voltage_pattern.values, patterns.T)
    assert (data.voltage.units, data.current_pattern.units, data.electrode_angle.units) == ("V", "mA", "rad")
    assert data.attrs["radius"] == 0.115 and data.attrs["missing"] == 0 and bool(data.measured.all())
    assert data.electrode_angle.values[[0, 8]] == pytest.approx([np.pi / 2, np.pi])
    assert 32 * data.attrs["electrode_width"] == pytest.approx(np.pi * 0.115)
    # The voltages are the patterns times the potentials; read the other way round they would not be.
    exact = scans.potentials(current.T / 1.5, 32) @ data.voltage_pattern.values.T
    np.testing.assert_allclose(data.voltage.values, exact, atol=1e-12)
    turned = voltage.reshape(*data.voltage.shape[::-1]).T
    assert np.abs(turned - exact).max() > 0.1
    scans.save(tmp_path / "matrix.mat", {**arrays, next(iter(arrays)): exact.T})
    np.testing.assert_allclose(open_dataset(tmp_path / "matrix.mat").voltage.values, exact)


def test_missing_voltages_are_counted_aloud(tmp_path: Path) -> None:
    path = tmp_path / "level3.mat"
    scans.save(path, scans.ktc(gone=(0, 1, 2, 3)))
    with pytest.warns(UserWarning, match=r"voltages of .*level3.mat' are missing .* electrodes 0, 1, 2, 3 say nothing"):
        data = open_dataset(path)
    gone = int(np.isnan(data.voltage.values).sum())
    assert (
        data.attrs["missing"] == gone == int((~data.measured).sum())
        and f"{gone} of {data.voltage.size}" in (data.attrs["missing_told"])
    )
    whole = int((~data.measured).all("measurement").sum())
    assert (
        0 < whole < data.sizes["injection"]
        and f"{whole} of {data.sizes['injection']} injections" in (data.attrs["missing_told"])
    )


def test_currents_tell_their_unit_by_their_size(tmp_path: Path) -> None:
    for largest, unit, word in ((1.5e-3, "A", "as amperes"), (1500.0, "uA", "as microamperes")):
        path = tmp_path / f"{unit}.mat"
        scans.save(path, scans.ktc(milliamperes=largest))
        with pytest.warns(UserWarning, match=word):
            assert open_dataset(path).current_pattern.units == unit
    path = tmp_path / "mA.mat"
    scans.save(path, scans.ktc(milliamperes=10.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_dataset(path).current_pattern.units == "mA"


def test_a_wrong_sign_gives_off_power(tmp_path: Path) -> None:
    path, arrays = tmp_path / "sign.mat", scans.ktc()
    scans.save(path, arrays, Uel=-arrays["Uel"])
    with pytest.warns(UserWarning, match="gives off power"):
        open_dataset(path)


def test_power_leaves_out_what_is_missing() -> None:
    """Least squares of the differences give the potentials but for a constant, which currents of sum zero do not see."""
    voltage, current, patterns = (np.asarray(part, dtype=float) for part in scans.ktc().values())
    voltage = voltage.reshape(current.shape[1], -1)
    exact = float((current.T * scans.potentials(current.T / 1.5, 32)).sum())
    assert power(voltage, current.T, patterns.T) == pytest.approx(exact, rel=1e-10)
    voltage[3] = np.nan
    less = exact - float((current.T * scans.potentials(current.T / 1.5, 32))[3].sum())
    assert power(voltage, current.T, patterns.T) == pytest.approx(less, rel=1e-10)


def test_segmentation_with_the_top_row_first(tmp_path: Path) -> None:
    path, truth = tmp_path / "true1.mat", np.zeros((256, 256), np.uint8)
    truth[10:30, 100:150], truth[200:220, 5:50] = 1, 2
    scans.save(path, {"truth": truth})
    data = open_dataset(path)
    np.testing.assert_array_equal(data.truth.values, truth)
    assert data.truth.dims == ("y", "x") and data.y.units == data.x.units == "m"
    assert data.y.values[0] == -data.y.values[-1] > 0 and data.x.values[0] < 0
    assert float(data.truth.sel(y=0.1, x=0.0, method="nearest")) == 1
    scans.save(path, {"truth": truth + 1})
    assert "0 (water)" in refused(path)
    scans.save(path, {"truth": truth[:7, :9]})  # another file, with its own meaning
    assert open_dataset(path, dims=("x", "y")).truth.dims == ("x", "y")


def test_mesh_with_cells(tmp_path: Path) -> None:
    path = tmp_path / "mesh.mat"
    faces = np.empty((1, 2), dtype=object)
    faces[0, 0], faces[0, 1] = np.array([[0, 1]], np.uint8), np.array([[2, 3]], np.uint8)
    nodes = np.array([[0.1, 0], [0, 0.1], [-0.1, 0], [0, -0.1]])
    mesh = {"g": nodes, "H": np.array([[0, 1, 2], [0, 2, 3]], np.uint16), "elfaces": faces}
    scans.save(path, mesh)
    data = open_dataset(path)
    np.testing.assert_array_equal(data.node.values, nodes)
    np.testing.assert_array_equal(data.element.values, mesh["H"])
    np.testing.assert_array_equal(data.electrode_edge.values, [[[0, 1]], [[2, 3]]])
    assert data.node.units == "m" and [len(cell) for cell in matlab_five.cells(str(path)).values()] == [2]
    scans.save(path, mesh, H=mesh["H"] + 2)
    assert "not in 'g'" in refused(path)


@pytest.mark.parametrize("rows", [True, False])
def test_the_finnish_archive_reads_patterns_by_reciprocity(tmp_path: Path, rows: bool) -> None:
    path = tmp_path / "datamat_1_0.mat"
    arrays = scans.finnish(rows)
    scans.save(path, arrays)
    data = open_dataset(path)
    matrix = arrays["MeasPattern"] if rows else arrays["MeasPattern"].T
    np.testing.assert_array_equal(data.voltage_pattern.values, matrix)
    np.testing.assert_array_equal(data.voltage.values, arrays["Uel"].T)
    np.testing.assert_array_equal(data.current_pattern.values, arrays["CurrentPattern"].T)
    assert data.attrs["radius"] == 0.14 and data.attrs["electrode_width"] == 0.025 and data.sizes["electrode"] == 16
    assert data.voltage.units == "V" and data.current_pattern.units == "mA" and "assumed" in data.attrs["geometry"]
    # Broken twin: read as the file does not mean it, the work of one current on another's potentials is not mutual.
    for patterns, least in ((matrix, 0.0), (matrix.T, 0.3)):
        works = data.current_pattern.values @ potentials(data.voltage.values, patterns).T
        fault = np.abs(works - works.T).sum() / np.abs(works).sum()
        assert fault > least if least else fault < 1e-12


def test_the_finnish_archive_refuses(tmp_path: Path) -> None:
    path, arrays = tmp_path / "datamat.mat", scans.finnish()
    scans.save(path, arrays, MeasPattern=None)
    assert "has no 'MeasPattern'" in refused(path)
    scans.save(path, arrays, Uel=arrays["Uel"][:, :5])
    assert "must be (measurement, injection)" in refused(path)
    scans.save(path, arrays, Uel=np.array(["text"]))
    assert "matrix of real numbers" in refused(path) or "has no 'Uel'" in refused(path)


def test_names_and_dims(tmp_path: Path) -> None:
    path = tmp_path / "data.mat"
    scans.save(path, scans.ktc())
    assert "v" in open_dataset(path, names={"voltage": "v"})
    assert "'voltage'" in refused(path, names={"voltages": "v"})
    plain = open_dataset(path, names={"Inj": "Inj"}, dims=("electrode", "injection"))
    assert plain.Inj.dims == ("electrode", "injection")


def test_what_the_challenge_would_not_write(tmp_path: Path) -> None:
    path, arrays = tmp_path / "data.mat", scans.ktc()
    scans.save(path, arrays, Mpat=None)
    assert "has no 'Mpat'" in refused(path)
    scans.save(path, arrays, Uel=None)
    assert "has no 'Uel'" in refused(path)
    scans.save(path, arrays, Uel=arrays["Uel"][:-1])
    assert "save all of them" in refused(path)
    scans.save(path, arrays, Mpat=arrays["Mpat"].T)
    assert "one row per electrode" in refused(path)
    scans.save(path, arrays, Uel=np.full_like(arrays["Uel"], np.nan))
    assert "no voltage that is a number" in refused(path)
    scans.save(path, arrays, Inj=0 * arrays["Inj"])
    assert "no current flows" in refused(path)
    scans.save(path, arrays, Inj=np.abs(arrays["Inj"]))
    assert "injection 0" in refused(path) and "must flow out" in refused(path)
    bad = arrays["Inj"].copy()
    bad[0, 0] = np.nan
    scans.save(path, arrays, Inj=bad)
    assert "not a number" in refused(path)
    scans.save(path, arrays, Uel=arrays["Uel"] * 1j)
    assert "real numbers" in refused(path)


@pytest.mark.parametrize("part", [0.95, 0.5, 0.2, 0.05])
def test_truncated(tmp_path: Path, part: float) -> None:
    for name, arrays in (("a.mat", scans.ktc()), ("b.mat", scans.finnish())):
        path = tmp_path / name
        scans.save(path, arrays)
        os.truncate(path, max(130, int(path.stat().st_size * part)))
        assert "damaged MATLAB" in refused(path) or "has no" in refused(path)


def test_flipped_bytes_raise_nothing_but_input_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.mat"
    scans.save(path, scans.ktc(8))
    whole = path.read_bytes()
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(128, len(content), 4):
            content[place] = rng.integers(256)
        path.write_bytes(bytes(content))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                open_dataset(path)
            except InputError as error:
                assert "\n" not in str(error)


def test_agrees_with_scipy_on_the_published_files(real_data: Path) -> None:
    folder = real_data / "eit_ktc2023"
    for name, (voltage, current) in {
        "ref": ("Uelref", "Injref"),
        "data1": ("Uel", "Inj"),
        "data2": ("Uel", "Inj"),
    }.items():
        theirs = scipy.io.loadmat(folder / f"{name}.mat")
        ours = open_dataset(folder / f"{name}.mat")
        assert ours.voltage.shape == (76, 31)
        np.testing.assert_array_equal(ours.voltage.values.reshape(-1, 1), theirs[voltage])
        np.testing.assert_array_equal(ours.current_pattern.values.T, theirs[current])
        np.testing.assert_array_equal(ours.voltage_pattern.values.T, theirs["Mpat"])
    with pytest.warns(
        UserWarning, match="952 of 2356 .* 24 of 76 injections wholly; electrodes 0, 1, 2, 3 say nothing"
    ):
        assert open_dataset(folder / "level3_data1.mat").attrs["missing"] == 952
    for k in (1, 2):
        truth = scipy.io.loadmat(folder / f"true{k}.mat")["truth"]
        np.testing.assert_array_equal(open_dataset(folder / f"true{k}.mat").truth.values, truth)
    mesh, theirs = open_dataset(folder / "Mesh_sparse.mat"), scipy.io.loadmat(folder / "Mesh_sparse.mat")
    np.testing.assert_array_equal(mesh.node.values, theirs["g"])
    np.testing.assert_array_equal(mesh.element.values, theirs["H"])
    np.testing.assert_array_equal(mesh.electrode_edge.values, np.stack(list(theirs["elfaces"][0])))
    # The electrodes of the mesh lie where the coordinate says, and are as wide.
    ends = mesh.node.values[mesh.electrode_edge.values]
    middle = ends.reshape(32, -1, 2).mean(1)
    turn = np.exp(1j * mesh.electrode_angle.values) / (middle[:, 0] + 1j * middle[:, 1])
    assert np.abs(np.angle(turn)).max() < 1e-3  # measured 2.4e-7
    width = np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=-1).sum(1)
    assert width == pytest.approx(mesh.attrs["electrode_width"], rel=1e-3)
