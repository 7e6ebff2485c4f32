"""Members as pairs of tensors: names, channels, windows, splits, statistics, signatures."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray

from sciml import metrics
from sciml.domains.boundary import Dirichlet, Neumann, Periodic
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.files import open_dataset
from sciml.files.formats import own
from sciml.training.normaliser import Moments, Normaliser
from sciml.training.samples import Samples, Signature, pairs, split, windows

GRID = Grid(shape=(5, 7), extent=(1.0, 2.0), sides={"x": Dirichlet(0.0), "y": Periodic()})


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def described(grid: Grid) -> dict[str, Any]:
    coordinates = {axis: values.numpy() for axis, values in zip("xyz", grid.coordinates(), strict=False)}
    return {"coords": coordinates, "attrs": {"grid": json.dumps(grid.to_dict())}}


def fields(count: int = 8) -> xarray.Dataset:
    """Every kind of variable that can become a channel."""
    return xarray.Dataset(
        {
            "coefficient": (("sample", "x", "y"), random(count, 5, 7) > 0),
            "source": (("x", "y"), random(5, 7, seed=1)),
            "flow": (("sample", "y", "x", "channel"), random(count, 7, 5, 2, seed=2)),
            "rate": (("sample",), random(count, seed=3)),
            "profile": (("y",), random(7, seed=4)),
            "level": ((), 0.25),
            "u": (("sample", "x", "y"), random(count, 5, 7, seed=5)),
            "movie": (("sample", "time", "x", "y"), random(count, 3, 5, 7, seed=6)),
        },
        **described(GRID),
    ).assign_attrs(beta=np.float32(2.0), recipe='{"name": "darcy"}', **described(GRID)["attrs"])


def on_disk(path: Path, count: int = 6, times: int = 5) -> tuple[xarray.Dataset, dict[str, Any]]:
    grid = Grid(shape=(8,), sides=Periodic())
    made = {"start": random(count, 8).astype("f4"), "u": random(count, times, 8, seed=1).astype("f4")}
    variables = {
        "start": own.Variable(("sample", "x"), made["start"].shape),
        "u": own.Variable(("sample", "time", "x"), made["u"].shape),
    }
    coordinates = {"x": grid.coordinates()[0].numpy(), "time": np.linspace(0, 1, times)}
    attrs = {"grid": json.dumps(grid.to_dict()), "recipe": '{"name": "burgers"}'}
    own.write(str(path), variables, coordinates, attrs, [made])
    return open_dataset(path), made


def test_every_kind_of_variable_becomes_channels() -> None:
    data = fields()
    names = ("coefficient", "source", "flow", "rate", "profile", "level", "beta")
    samples = pairs(data, names, "u")
    inputs, targets = samples.batch([6, 1, 1])
    assert inputs.shape == (3, 8, 5, 7) and targets.shape == (3, 1, 5, 7)
    assert inputs.dtype == targets.dtype == torch.float32 and len(samples) == 8
    expected = [
        data.coefficient.values[6], data.source.values, *data.flow.values[6].transpose(2, 1, 0),
        np.full((5, 7), data.rate.values[6]), np.broadcast_to(data.profile.values, (5, 7)), np.full((5, 7), 0.25),
        np.full((5, 7), 2.0),
    ]  # fmt: skip
    np.testing.assert_array_equal(inputs[0].numpy(), np.stack(expected).astype("f4"))
    np.testing.assert_array_equal(targets[1:, 0].numpy(), data.u.values[[1, 1]].astype("f4"))
    assert samples.channels[0] == ("coefficient", "source", "flow", "flow", "rate", "profile", "level", "beta")
    assert samples.signature.in_channels == 8 and samples.signature.labels == samples.channels
    assert samples.recipe == {"name": "darcy"} and samples.spacing == pytest.approx((1 / 6, 2 / 7))
    assert pairs(data, "u", "u", dtype=torch.float64).batch([0])[0].dtype == torch.float64


def test_inputs_without_targets() -> None:
    inputs, targets = pairs(fields(), ("rate", "u"), ()).batch(range(4))
    assert inputs.shape == (4, 2, 5, 7) and targets.shape == (4, 0, 5, 7)


def test_a_single_time_is_taken() -> None:
    data = fields()
    _, targets = pairs(data.isel(time=[-1]), "u", "movie").batch([2])
    np.testing.assert_array_equal(targets[0, 0].numpy(), data.movie.values[2, -1].astype("f4"))


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        ("coeficient", "u", "'coefficient'"),
        ("movie", "u", "sciml.windows"),
        ("u", "source", "it needs"),
        ("u", "level", "it needs"),
        ((), "u", "at least one"),
        ("wave", "u", "complex"),
        ("other", "u", "use one grid"),
    ],
)
def test_what_pairs_refuse(inputs: Any, targets: Any, message: str) -> None:
    data = fields().assign(wave=fields().u * 1j, other=(("sample", "z"), random(8, 3)))
    with pytest.raises(InputError, match=message):
        pairs(data, inputs, targets)


def test_numbers_that_are_not_finite_are_named() -> None:
    data = fields()
    data["flow"][3, 2, 2, 1] = np.nan
    samples = pairs(data, ("u", "flow"), "u")
    samples.batch([0, 1, 2])
    with pytest.raises(InputError, match=r"'flow'.*member 3"):
        samples.batch([5, 3])
    with pytest.raises(InputError, match="asked for|among"):
        samples.batch([8])


@pytest.mark.parametrize(("history", "horizon"), [(1, 1), (2, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("members", [[0], [9, 0, 3], list(range(12))])
def test_windows_are_the_frames_they_say(tmp_path: Path, history: int, horizon: int, members: list[int]) -> None:
    data, made = on_disk(tmp_path / "movies.h5", times=6)
    samples = windows(data.u, history=history, horizon=horizon)
    per = 6 - history - horizon + 1
    assert len(samples) == 6 * per and samples.signature.time_spacing == pytest.approx(0.2)
    inputs, targets = samples.batch(members)
    for row, member in enumerate(members):
        sample, first = divmod(member, per)
        frames = made["u"][sample, first : first + history + horizon]
        np.testing.assert_array_equal(inputs[row].numpy(), frames[:history])
        np.testing.assert_array_equal(targets[row].numpy(), frames[history:])
    assert samples.signature.grid == ("periodic",) and samples.recipe == {"name": "burgers"}
    assert samples.signature.in_channels == history and samples.signature.out_channels == horizon


def test_windows_of_one_trajectory_and_of_channels() -> None:
    movie = xarray.DataArray(random(7, 2, 4), dims=("x", "channel", "time"), name="v")
    inputs, targets = windows(movie, 2).batch([1])
    np.testing.assert_array_equal(
        inputs[0].numpy(), movie.values[..., 1:3].transpose(2, 1, 0).reshape(4, 7).astype("f4")
    )
    np.testing.assert_array_equal(targets[0].numpy(), movie.values[..., 3].T.astype("f4"))


def test_windows_of_a_lazy_trajectory_without_sample(tmp_path: Path) -> None:
    data, made = on_disk(tmp_path / "movies.h5")
    inputs, _ = windows(data.u.isel(sample=2)).batch([3])
    np.testing.assert_array_equal(inputs[0, 0].numpy(), made["u"][2, 3])


def test_what_windows_refuse() -> None:
    movie = xarray.DataArray(random(2, 4, 8), dims=("sample", "time", "x"), coords={"time": [0.0, 0.1, 0.2, 0.4]})
    for data, how, message in (
        (movie, {}, "evenly"),
        (movie.drop_vars("time"), {"history": 3, "horizon": 2}, "4 frames"),
        (movie.drop_vars("time"), {"history": 0}, "at least 1"),
        (movie.isel(time=0), {}, "no 'time'"),
        (movie.to_dataset(name="u"), {}, "one variable"),
        (movie.drop_vars("time") * 1j, {}, "real numbers"),
    ):
        with pytest.raises(InputError, match=message):
            windows(data, **how)  # type: ignore[arg-type]


def test_split_is_disjoint_repeatable_and_lazy(tmp_path: Path) -> None:
    data, made = on_disk(tmp_path / "movies.h5", count=20)
    parts = split(data, (12, 5, 3), seed=4)
    assert [part.sizes["sample"] for part in parts] == [12, 5, 3]
    starts = np.concatenate([part.start.values for part in parts])
    assert {tuple(row) for row in starts} == {tuple(row) for row in made["start"]} and len(starts) == 20
    again, other = split(data, (12, 5, 3), seed=4), split(data, (12, 5, 3), seed=5)
    np.testing.assert_array_equal(again[1].start.values, parts[1].start.values)
    assert not np.array_equal(other[1].start.values, parts[1].start.values)
    assert [part.sizes["sample"] for part in split(data, (0.7, 0.2, 0.1))] == [14, 4, 2]
    assert [part.sizes["sample"] for part in split(data, (0.5,))] == [10]


def test_windows_of_one_trajectory_stay_together(tmp_path: Path) -> None:
    data, _ = on_disk(tmp_path / "movies.h5")
    samples = windows(data.u)
    train, held = split(samples, (4, 2))
    assert len(train) == 16 and not set(train.groups) & set(held.groups)
    whole = samples.batch(range(len(samples)))[0]
    together = torch.cat([train.batch(range(16))[0], held.batch(range(8))[0]])
    assert sorted(map(float, together.sum((1, 2)))) == sorted(map(float, whole.sum((1, 2))))
    torch.testing.assert_close(train.take([3, 1]).batch([0])[0], train.batch([3])[0])


@pytest.mark.parametrize("counts", [(15, 6), (0.9, 0.2), (20, 0), (-1, 3), (), (10, 0.5), (0.001,), (True,)])
def test_what_split_refuses(counts: Any) -> None:
    data = xarray.Dataset({"u": (("sample", "x"), random(20, 3))})
    with pytest.raises(InputError):
        split(data, counts)
    with pytest.raises(InputError, match="'sample'"):
        split(data.rename(sample="n"), (1,))


def _first(samples: Samples) -> Any:
    return samples.batch([4, 0])[0].numpy()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_samples_cross_processes(tmp_path: Path, method: str) -> None:
    data, made = on_disk(tmp_path / "movies.h5")
    samples = pairs(data, "start", "start")
    assert samples.signature.ranges["start"] == pytest.approx((made["start"].min(), made["start"].max()))
    np.testing.assert_array_equal(_first(pickle.loads(pickle.dumps(samples))), _first(samples))
    with multiprocessing.get_context(method).Pool(1) as pool:
        np.testing.assert_array_equal(pool.map(_first, [samples])[0], made["start"][[4, 0], None])


def test_moments_in_pieces_are_the_moments() -> None:
    """Tolerance: float64 sums of 900 numbers of size 1e3, 1e-12 relative."""
    values = torch.randn(12, 3, 5, 5, dtype=torch.float64) * torch.tensor([1.0, 1e-3, 5.0])[:, None, None] + 1e3
    moments = Moments()
    for piece in torch.split(values, [1, 4, 7]):
        moments.add(piece)
    flat = values.transpose(0, 1).flatten(1)
    made = Normaliser.of_moments(moments)
    torch.testing.assert_close(made.mean, flat.mean(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(made.std, flat.std(1, correction=0), rtol=1e-9, atol=0)
    naive = (flat.float().square().mean(1) - flat.float().mean(1).square()).abs().sqrt()  # the broken twin
    assert not torch.allclose(naive.double(), made.std, rtol=1e-2)


def test_a_constant_channel_comes_back_exactly() -> None:
    moments = Moments()
    fields_ = torch.cat([torch.full((4, 1, 6), 0.1), torch.randn(4, 1, 6)], 1)
    for piece in fields_.split(1):
        moments.add(piece)
    made = Normaliser.of_moments(moments)
    assert made.std[0] == 1.0
    torch.testing.assert_close(made.decode(made.encode(fields_)), fields_)
    again = Normaliser.restore(json.loads(json.dumps(made.state())))
    assert torch.equal(again.mean, made.mean) and torch.equal(again.std, made.std)
    assert torch.equal(Normaliser.identity(2).encode(fields_), fields_)
    with pytest.raises(InputError, match="2 channels"):
        made.encode(torch.zeros(1, 3, 6))
    for state in ({}, {"mean": [0.0], "std": [0.0]}, {"mean": [0.0], "std": [1.0, 1.0]}, {"mean": "a", "std": [1]}):
        with pytest.raises(InputError):
            Normaliser.restore(state)


def test_signature_of_data_and_of_its_grid_agree() -> None:
    samples = pairs(fields(), "coefficient", "u")
    signature = samples.signature
    assert signature.grid == ("interior", "periodic") and signature.extent == (1.0, 2.0)
    assert signature.mismatch(Signature.of_grid(GRID, ("coefficient",), ("u",))) is None
    finer = Grid(shape=(11, 14), extent=(1.0, 2.0), sides=GRID.sides)
    assert signature.mismatch(Signature.of_grid(finer, ("coefficient",), ("u",))) is None
    assert Signature.from_json(signature.to_json()) == signature
    with pytest.raises(InputError, match="damaged"):
        Signature.from_json("{}")
    with pytest.raises(InputError, match="damaged"):
        Signature.from_json("{")


def test_what_a_signature_refuses() -> None:
    mine = Signature.of_grid(GRID, ("a",), ("u",), time_spacing=0.1, history=1, horizon=1)
    closed = Grid(shape=(5, 7), extent=(1.0, 2.0), sides={"x": Neumann(0.0), "y": Periodic()})
    longer = Grid(shape=(5, 7), extent=(1.0, 3.0), sides=GRID.sides)
    line = Grid(shape=(5,), extent=(1.0,))
    step = {"time_spacing": 0.1, "history": 1, "horizon": 1}
    for other, word in (
        (Signature.of_grid(GRID, ("b",), ("u",), **step), "'b'"),
        (Signature.of_grid(GRID, ("a",), ("v",), **step), "'v'"),
        (Signature.of_grid(GRID, ("a",), ("u",), {"a": 2}, **step), "2 input channels|given 2"),
        (Signature.of_grid(GRID, ("a",), ("u",), **step | {"history": 2}), "given 2"),
        (Signature.of_grid(closed, ("a",), ("u",), **step), "interior along x.*closed"),
        (Signature.of_grid(longer, ("a",), ("u",), **step), "length 2 along y"),
        (Signature.of_grid(line, ("a",), ("u",), **step), "axes of space"),
        (Signature.of_grid(GRID, ("a",), ("u",), **step | {"time_spacing": 0.2}), "steps of 0.1"),
    ):
        said = mine.mismatch(other)
        assert said is not None
        assert __import__("re").search(word, said), said


@pytest.mark.parametrize(("stride", "kind"), [(5, "closed"), (4, "closed"), (3, "other")])
def test_a_stride_must_hit_both_sides(stride: int, kind: str) -> None:
    grid = Grid(shape=(21,), sides=Neumann(0.0))
    data = xarray.Dataset({"u": (("sample", "x"), random(3, 21))}, **described(grid))
    assert pairs(data, "u", "u").signature.grid == ("closed",)
    thin = data.isel(x=slice(None, None, stride))
    assert pairs(thin, "u", "u").signature.grid == (kind,)


@pytest.mark.parametrize(
    ("sides", "kind"),
    [
        (Dirichlet(0.0), "interior"),
        (Neumann(0.0), "closed"),
        (Periodic(), "periodic"),
        ((Dirichlet(0.0), Neumann(0.0)), "mixed"),
        ((Neumann(0.0), Dirichlet(0.0)), "mixed"),
    ],
)
def test_kind_of_grid_with_and_without_coordinates(sides: Any, kind: str) -> None:
    grid = Grid(shape=(9,), extent=(0.7,), origin=(-3.0,), sides={"x": sides})
    data = xarray.Dataset({"u": (("sample", "x"), random(3, 9))}, **described(grid))
    for known in (data, data.drop_vars("x")):
        signature = pairs(known, "u", "u").signature
        assert signature.grid == (kind,) and signature.spacing == pytest.approx(grid.spacing)
    foreign = pairs(xarray.Dataset({"u": data.u.drop_vars("x").drop_attrs()}), "u", "u")
    assert foreign.signature.grid == ("unknown",) and foreign.spacing == (1 / 9,)


def test_metrics() -> None:
    """Tolerance: float64 rounding."""
    target = torch.randn(3, 2, 9, 14, dtype=torch.float64)
    prediction = target * 1.1
    torch.testing.assert_close(metrics.relative_l2(prediction, target), torch.full((3,), 0.1, dtype=torch.float64))
    h1 = metrics.relative_h1(prediction, target, (0.1, 0.2), (True, False))
    torch.testing.assert_close(h1, torch.full((3,), 0.1, dtype=torch.float64))
    x = torch.arange(64, dtype=torch.float64) * 2 * torch.pi / 64
    wave = metrics.relative_h1(
        (torch.sin(x) + torch.sin(8 * x))[None, None], torch.sin(x)[None, None], (x[1],), (True,)
    )
    assert float(wave) == pytest.approx(
        (1 + 64) ** 0.5 / 2**0.5, rel=0.1
    )  # one-sided differences: 10 % at mode 8 of 64
    zero = torch.zeros(2, 1, 4)
    some = torch.stack([torch.zeros(1, 4), torch.ones(1, 4)])
    assert metrics.relative_l2(some, zero).tolist() == [0.0, float("inf")]
    assert metrics.relative_l2(some * 1j, some.to(torch.complex64)).tolist() == [0.0, pytest.approx(2**0.5)]
    assert metrics.max_error(some, zero).tolist() == [0.0, 1.0]
    broken = (prediction - target).norm() / target.norm()  # the broken twin: one number for the whole batch
    assert broken.shape != metrics.relative_l2(prediction, target).shape
    for bad in (torch.zeros(3, 2, 9), torch.zeros(3)):
        with pytest.raises(InputError):
            metrics.relative_l2(bad, target)
    with pytest.raises(InputError, match="one of each"):
        metrics.relative_h1(target, target, (1.0,), (True, False))
