"""Every layout is recognised by content and read with named axes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import h5py
import layouts
import numpy as np
import pytest
import scipy.io
import torch

from sciml.domains.errors import InputError
from sciml.files import open_dataset
from sciml.files.formats import matlab_five, own


def test_pdebench_darcy_drops_the_axis_of_length_one(tmp_path: Path) -> None:
    path = tmp_path / "2D_DarcyFlow.hdf5"
    layouts.pdebench_darcy(path)
    data = open_dataset(path, names={"nu": "coefficient", "tensor": "u"})
    assert data.u.dims == data.coefficient.dims == ("sample", "x", "y")
    np.testing.assert_array_equal(data.u.values, layouts.values(7, 1, 6, 7, seed=1)[:, 0])
    assert data.attrs["beta"] == pytest.approx(0.1)
    assert data.x.size == 6 and data.y.size == 7


def test_pdebench_time_edges_lose_the_last(tmp_path: Path) -> None:
    path = tmp_path / "advection.any"
    layouts.pdebench_advection(path)
    data = open_dataset(path, names={"beta": "speed"})
    assert data.tensor.dims == ("sample", "time", "x")
    np.testing.assert_allclose(data.time.values, [0.0, 0.5, 1.0, 1.5])
    assert data.attrs["speed"] == pytest.approx(0.4) and data.attrs["note"] == "text"


@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 5, 6)])
def test_pdebench_flow_in_one_to_three_dimensions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "flow.hdf5"
    layouts.pdebench_flow(path, shape=shape)
    data = open_dataset(path)
    assert data.density.dims == ("sample", "time", *"xyz"[: len(shape)])
    assert set(data) == {"density", "pressure", "Vx", "Vy", "Vz"} - set(("Vz", "Vy")[: 3 - len(shape)])


def test_pdebench_rejects_swapped_axes(tmp_path: Path) -> None:
    path = tmp_path / "swapped.hdf5"
    layouts.pdebench_darcy(path)
    with h5py.File(path, "r+") as file:
        found = file["nu"][...]
        del file["nu"]
        file["nu"] = found.transpose(0, 2, 1)
    with pytest.raises(InputError, match="give dims="):
        open_dataset(path)


def test_any_hdf5_with_names_and_dims(tmp_path: Path) -> None:
    path = tmp_path / "mine.h5"
    layouts.plain_hdf5(path)
    names = {
        "nu": "coefficient",
        "f": "source",
        "tensor": "u",
        "scale": "scale",
        "packed": "packed",
        "swapped": "swapped",
    }
    data = open_dataset(path, names=names, dims=("sample", "x", "y"))
    assert data.source.dims == ("x", "y") and data.u.dims == ("sample", "x", "y") and data.scale.dims == ()
    assert data.swapped.dtype.isnative
    torch.from_numpy(data.swapped.values)
    picks = np.array([5, 0, 0, 3])
    for name, seed in (("coefficient", 0), ("packed", 3), ("swapped", 4)):
        whole = layouts.values(7, 6, 7, seed=seed)
        np.testing.assert_array_equal(data[name].isel(sample=picks, x=[4, 1]).values, whole[picks][:, [4, 1]])
        np.testing.assert_array_equal(data[name].isel(sample=-1, y=slice(5, 1, -2)).values, whole[-1][:, 5:1:-2])
        np.testing.assert_array_equal(data[name].isel(sample=[]).values, whole[[]])


def test_one_tuple_of_dims_per_variable(tmp_path: Path) -> None:
    path = tmp_path / "square.h5"
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = layouts.values(6, 6, 6), layouts.values(6, 6)
    with pytest.raises(InputError, match="3 ways to match"):
        open_dataset(path, dims=("sample", "x", "y"))
    data = open_dataset(path, dims={"a": ("sample", "x", "y"), "b": ("x", "y")})
    assert data.b.dims == ("x", "y")


def test_netcdf_says_its_axes(tmp_path: Path) -> None:
    import xarray

    path = tmp_path / "field.nc"
    made = xarray.Dataset({"u": (("x", "y"), layouts.values(5, 6))}, coords={"x": np.arange(5.0), "y": np.arange(6.0)})
    made.to_netcdf(path, engine="h5netcdf")
    data = open_dataset(path)
    assert data.u.dims == ("x", "y")
    np.testing.assert_array_equal(data.u.values, made.u.values)
    np.testing.assert_array_equal(data.x.values, made.x.values)


def test_matlab_five(tmp_path: Path) -> None:
    path = tmp_path / "wave"
    field = np.asfortranarray(layouts.values(8, 5).astype(np.complex128))
    scipy.io.savemat(path, {"usol": field + 1e-12j, "x": np.arange(8.0), "t": np.arange(5.0)[:, None]}, appendmat=False)
    data = open_dataset(path)
    assert data.usol.dims == ("x", "time") and data.usol.dtype == np.float64
    assert data.usol.values.flags.c_contiguous
    np.testing.assert_array_equal(data.usol.values, field.real)
    scipy.io.savemat(path, {"usol": field + 1e-3j, "x": np.arange(8.0), "t": np.arange(5.0)}, appendmat=False)
    assert open_dataset(path).usol.dtype.kind == "c"


def test_matlab_operator_sets(tmp_path: Path) -> None:
    path = tmp_path / "set.mat"
    scipy.io.savemat(
        path, {"coeff": layouts.values(4, 5, 5), "sol": layouts.values(4, 5, 5), "Kcoeff": layouts.values(4, 5, 5)}
    )
    assert open_dataset(path, names={"coeff": "coefficient", "sol": "u"}).u.dims == ("sample", "x", "y")
    scipy.io.savemat(path, {"a": layouts.values(3, 6, 5), "u": layouts.values(3, 6, 5, 9), "t": np.arange(9.0)})
    assert open_dataset(path).u.dims == ("sample", "x", "y", "time")
    scipy.io.savemat(path, {"xy": layouts.values(9, 2, 4)})  # members last
    data = open_dataset(path, dims=("node", "component", "sample"))
    assert data.sizes["sample"] == 4


@pytest.mark.parametrize("packed", [False, True])
def test_matlab_five_reads_what_scipy_reads(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "all.mat"
    kinds = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "c16", "?")
    made: dict[str, Any] = {f"v_{kind.strip('?') or 'b'}": (9 * layouts.values(3, 4, 2)).astype(kind) for kind in kinds}
    made |= {"number": 3.0, "row": np.arange(5.0), "none": np.zeros((0, 3)), "text": "abc", "part": {"a": 1.0}}
    scipy.io.savemat(path, made, do_compression=packed)
    found = matlab_five.arrays(str(path))
    other = scipy.io.loadmat(path)
    assert set(found) == {name for name in made if name not in ("text", "part")}
    for name, value in found.items():
        np.testing.assert_array_equal(value, other[name])
        assert value.dtype == (bool if name == "v_b" else other[name].dtype)


def test_matlab_five_big_endian(tmp_path: Path) -> None:
    """A file as a big-endian machine writes it, made by hand from the description of the format."""
    flags = struct.pack(">IIII", 6, 8, 6, 0)
    shape = struct.pack(">IIii", 5, 8, 2, 3)
    name = struct.pack(">HHc3x", 1, 1, b"u")
    values = struct.pack(">II6d", 9, 48, *range(6))
    body = flags + shape + name + values
    path = tmp_path / "big.mat"
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body)
    np.testing.assert_array_equal(matlab_five.arrays(str(path))["u"], np.arange(6.0).reshape(3, 2).T)
    np.testing.assert_array_equal(scipy.io.loadmat(path)["u"], np.arange(6.0).reshape(3, 2).T)


def test_matlab_seven_reverses_the_axes(tmp_path: Path) -> None:
    path = tmp_path / "seven.mat"
    start, later = layouts.values(3, 6, 5), layouts.values(3, 6, 5, 9, seed=1)
    layouts.matlab_reversed(path, {"a": start, "u": later, "t": np.arange(9.0)[None], "w": start + 2j * start})
    data = open_dataset(path, names={"a": "a", "u": "u"})
    assert data.u.dims == ("sample", "x", "y", "time")
    np.testing.assert_array_equal(data.u.isel(sample=[2, 0], time=4).values, later[[2, 0], ..., 4])
    waves = open_dataset(path, names={"w": "w"}, dims=("sample", "x", "y")).w
    np.testing.assert_allclose(waves.isel(sample=1).values, (start + 2j * start)[1])


def test_torch_files(tmp_path: Path) -> None:
    path = tmp_path / "pairs.bin"
    layouts.torch_pairs(path)
    data = open_dataset(path, names={"x": "coefficient", "y": "u"})
    assert data.coefficient.dtype == bool and data.u.dims == ("sample", "x", "y")
    assert set(open_dataset(path)) == {"input", "output"}
    torch.save({"x": torch.zeros(4, 6), "y": torch.zeros(4, 3, 6), "visc": torch.ones(1, 1)}, path)
    moving = open_dataset(path, names={"x": "start", "y": "u", "visc": "viscosity"})
    assert moving.u.dims == ("sample", "time", "x") and moving.viscosity.dims == ()
    torch.save({"v": torch.zeros(2, 3, dtype=torch.bfloat16)}, path, _use_new_zipfile_serialization=False)
    assert open_dataset(path, dims=("sample", "x")).v.dtype == np.float32


class Harmful:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("harmed",))


def test_torch_files_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Harmful()}, "bad.pt")
    with pytest.raises(InputError, match="never unpickled"):
        open_dataset("bad.pt")
    assert not (tmp_path / "harmed").exists()


def own_file(path: Path, count: int = 6) -> dict[str, Any]:
    made = {"coefficient": layouts.values(count, 5, 4), "u": layouts.values(count, 5, 4, seed=1)}
    variables = {name: own.Variable(("sample", "x", "y"), value.shape) for name, value in made.items()}
    blocks = [{name: value[start : start + 4] for name, value in made.items()} for start in range(0, count, 4)]
    attrs = {"recipe": '{"name": "darcy"}', "grid": "{}", "beta": 2.0}
    own.write(str(path), variables, {"x": np.arange(5.0), "y": np.arange(4.0)}, attrs, blocks)
    return made


def test_own_layout_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "own.h5"
    made = own_file(path)
    data = open_dataset(path)
    for name, value in made.items():
        np.testing.assert_array_equal(data[name].values, value)
    assert data.attrs["recipe"] == '{"name": "darcy"}' and data.attrs["beta"] == 2.0 and data.attrs["sciml"] == 1
    with h5py.File(path) as file:  # PDEBench tools can read it: plain, contiguous, at the root
        assert file["u"].chunks is None and file["u"].id.get_offset() is not None
    first = path.read_bytes()
    own_file(path)
    assert path.read_bytes() == first
    assert [item.name for item in tmp_path.iterdir()] == ["own.h5"]


def test_own_layout_refuses_blocks_that_do_not_fill(tmp_path: Path) -> None:
    variables = {"u": own.Variable(("sample", "x"), (5, 3))}
    for block in (np.zeros((4, 3)), np.zeros((6, 3)), np.zeros((5, 2))):
        with pytest.raises(InputError):
            own.write(str(tmp_path / "u.h5"), variables, {}, {}, [{"u": block}])
    assert not list(tmp_path.iterdir())


def test_own_layout_of_a_later_version(tmp_path: Path) -> None:
    path = tmp_path / "own.h5"
    own_file(path)
    with h5py.File(path, "r+") as file:
        file.attrs["sciml"] = 99
    with pytest.raises(InputError, match="upgrade"):
        open_dataset(path)


def _total(data: Any) -> float:
    return float(data.u.isel(sample=[3, 1]).values.sum())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pickles_and_crosses_processes(tmp_path: Path, method: str) -> None:
    path = tmp_path / "own.h5"
    own_file(path)
    data = open_dataset(path)
    expected = _total(data)  # read before the fork and before pickling
    assert _total(pickle.loads(pickle.dumps(data))) == expected
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map(_total, [data]) == [expected]


def test_lazy_until_indexed(tmp_path: Path) -> None:
    path = tmp_path / "own.h5"
    own_file(path)
    data = open_dataset(path)
    path.unlink()
    with pytest.raises(InputError, match="no longer there"):
        data.u.isel(sample=0).values.sum()


def test_file_that_shrank(tmp_path: Path) -> None:
    for make in (own_file, layouts.plain_hdf5):
        path = tmp_path / "data.h5"
        make(path)
        data = (
            open_dataset(path, dims={"packed": ("sample", "x", "y")}, names={"packed": "u"})
            if make is not own_file
            else open_dataset(path)
        )
        os.truncate(path, path.stat().st_size // 3)
        with pytest.raises(InputError, match=r"data\.h5"):
            data.u.isel(sample=[0, 2]).values.sum()


def test_real_files(real_data: Path) -> None:
    for path in sorted(real_data.rglob("*.mat")):
        other = scipy.io.loadmat(path)
        for name, value in matlab_five.arrays(str(path)).items():
            np.testing.assert_array_equal(value, other[name])
    assert open_dataset(real_data / "pde/burgers.mat").usol.dims == ("x", "time")
    data = open_dataset(real_data / "pde/darcy_train_16.pt", names={"x": "coefficient", "y": "u"})
    assert data.u.shape == (1000, 16, 16) and data.coefficient.dtype == bool
