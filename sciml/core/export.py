"""Solutions as xarray Datasets and netCDF-4 files."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.inverse import Inverse
from sciml.core.solution import Code, Solution
from sciml.domains.errors import InputError
from sciml.domains.mesh import Elements, Mesh

if TYPE_CHECKING:
    import xarray

    from sciml.core.problem import Problem

__all__ = ["Axis", "data_axes", "save", "to_xarray", "unknown_name"]


def _array(value: Tensor) -> Any:
    return value.detach().cpu().numpy()


class Axis(NamedTuple):
    """One axis of the data: name, and coordinates along it, ``(name, values, units)``."""

    name: str
    points: tuple[tuple[str, Any, str], ...]


def unknown_name(problem: Problem) -> str:
    """What the unknown is called in files and pictures: its own name, unless an axis of space has that one."""
    return "reconstruction" if problem.unknown in "xyz" else problem.unknown


def data_axes(problem: Inverse[Any]) -> tuple[Axis, ...]:
    """The axes of the data ``(batch, channel, *axes)``.

    Those of the image for data on its pixels or nodes, ``view`` (angle) and ``bin`` (position) for a scan, ``point`` with its
    coordinates for values at points, otherwise ``data_0``, ``data_1``, ...
    """
    shape, domain = tuple(problem.data.shape[2:]), problem.forward.codomain.domain
    if domain is not None and tuple(domain.shape) == shape:
        known = problem.space.domain
        same = known is not None and known.to_dict() == domain.to_dict()
        names = "xyz"[: len(shape)] if same else [f"data_{axis}" for axis in "xyz"[: len(shape)]]
        lines = [_array(line) for line in domain.coordinates()]
        unit = getattr(domain, "unit", "1")
        return tuple(Axis(name, ((name, line, unit),)) for name, line in zip(names, lines, strict=True))
    angles, positions = getattr(problem.forward, "angles", None), getattr(problem.forward, "positions", None)
    if isinstance(angles, Tensor) and isinstance(positions, Tensor) and shape == (len(angles), len(positions)):
        return (
            Axis("view", (("angle", _array(angles), "rad"),)),
            Axis("bin", (("position", _array(positions), getattr(problem.space.domain, "unit", "1")),)),
        )
    if isinstance(getattr(problem.forward, "currents", None), Tensor) and len(shape) == 2:
        return Axis("injection", ()), Axis("measurement", ())
    points = getattr(getattr(problem.forward, "observe", problem.forward), "points", None)
    if isinstance(points, Tensor) and points.ndim == 2 and shape[-1:] == (len(points),):
        columns = [(f"point_{axis}", _array(points[:, i]), "1") for i, axis in enumerate("xyz"[: points.shape[1]])]
        return (*(Axis(f"data_{i}", ()) for i in range(len(shape) - 1)), Axis("point", tuple(columns)))
    return tuple(Axis(f"data_{i}", ()) for i in range(len(shape)))


def to_xarray(solution: Solution) -> xarray.Dataset:
    """Dims ``sample[, time], [channel,] x, y, z``; a single channel is dropped; checks and codes per member beside.

    Of an inverse problem also: ``data`` and what is known of their noise on the axes of ``data_axes``, ``truth`` if it is kept,
    the ``weight`` of the prior and the dual variables, with which the certificate can be checked again. Posterior samples are ``samples`` (draw, sample, ...).
    """
    import xarray

    problem = solution.problem
    space, domain = problem.space, problem.space.domain
    members = solution.value.shape[0]
    listed = {Mesh: "node", Elements: "element"}.get(type(domain))
    names = list("xyz"[: space.dim]) if domain is not None else [f"index_{i}" for i in range(space.dim)]
    names = names if listed is None else [listed]
    time = ["time"] if isinstance(problem, Evolution) else []
    coordinates: dict[str, Any] = {"sample": np.arange(members)}
    if domain is not None and listed is not None:
        for name, points in zip("xy", domain.coordinates(), strict=True):
            coordinates[name] = (listed, _array(points), {"units": getattr(domain, "unit", "1")})
        mesh = domain.mesh if isinstance(domain, Elements) else domain
        assert isinstance(mesh, Mesh)
        coordinates["corner"] = (
            ("triangle", "vertex"),
            _array(mesh.triangles),
            {"long_name": "nodes of each triangle, from zero"},
        )
    elif domain is not None:
        for name, points in zip(names, domain.coordinates(), strict=True):
            coordinates[name] = (name, _array(points), {"units": getattr(domain, "unit", "1"), "axis": name.upper()})
    if isinstance(problem, Evolution):
        coordinates["time"] = ("time", np.asarray(problem.times), {"units": "1", "axis": "T"})

    unit = problem.forward.unit if isinstance(problem, Inverse) else "1"

    def variable(
        value: Tensor, dims: list[str], axes: list[str] = names, channel: str = "channel", units: str = "1"
    ) -> Any:
        axis = len(dims)
        array = _array(value)
        if value.shape[axis] == 1:
            return [*dims, *axes], array.squeeze(axis), {"units": units}
        return [*dims, channel, *axes], array, {"units": units}

    def whole(value: Tensor) -> Tensor:
        return value.expand(members, *value.shape[1:])

    data: dict[str, Any] = {unknown_name(problem): variable(solution.value, ["sample", *time], units=unit)}
    if solution.samples is not None:
        data["samples"] = variable(solution.samples, ["draw", "sample", *time], units=unit)
    attributes: dict[str, Any] = {
        "title": problem.name,
        "solver": type(solution.solver).__name__,
        "certificate": str(solution),
        "recipe": "" if problem.recipe is None else problem.recipe.to_json(),
        "Conventions": "CF-1.8",
    }
    if isinstance(problem, Inverse):
        axes = data_axes(problem)
        coordinates |= {
            name: (axis.name, points, {"units": units}) for axis in axes for name, points, units in axis.points
            if name not in coordinates
        }  # fmt: skip
        for name, value in _measured(problem).items():
            data[name] = variable(whole(value), ["sample"], [axis.name for axis in axes], "data_channel")
        for name, value in (solution.dual or {}).items():
            if value.shape[1:] == problem.data.shape[1:]:
                dims, channel = [axis.name for axis in axes], "data_channel"
            elif value.shape[2:] == space.shape[1:]:
                dims, channel = names, f"dual_{name}_channel"
            else:
                dims, channel = [f"dual_{name}_{i}" for i in range(value.ndim - 2)], f"dual_{name}_channel"
            data[f"dual_{name}"] = variable(whole(value), ["sample"], dims, channel)
        if problem.truth is not None:
            data["truth"] = variable(whole(problem.truth), ["sample"], units=unit)
        if solution.weight is not None:
            told = {"long_name": f"weight of the prior {type(problem.prior).__name__}", "units": "1"}
            data["weight"] = (["sample"], _array(solution.weight), told)
        attributes["prior"] = "none" if problem.prior is None else repr(problem.prior)[:1000]
        sigma = getattr(problem.noise, "sigma", None)
        if isinstance(sigma, int | float) or isinstance(sigma, Tensor) and sigma.ndim == 0:
            attributes["sigma"] = float(sigma)
    for name, value in problem.fields.items():
        if name not in data:
            data[name] = variable(whole(value), ["sample"])
    data["code"] = (["sample"], _array(solution.codes), {"flag_meanings": " ".join(code.name for code in Code)})
    for check in solution.checks:
        target = {} if check.target is None else {"target": check.target}
        data[check.name.replace(" ", "_")] = (["sample"], _array(check.value), target)
    for name, value in problem.parameters().items():
        if value.ndim == 0 and name not in attributes:
            attributes[name] = float(value.detach().real)
    return xarray.Dataset(data, coordinates, attributes)


def _measured(problem: Inverse[Any]) -> dict[str, Tensor]:
    """The data, and what of sigma and the mask varies over them, each of the data's shape."""
    shape = problem.data.shape
    found = {"data": problem.data}
    sigma, measured = getattr(problem.noise, "sigma", None), problem.noise.measured
    if isinstance(sigma, Tensor) and sigma.ndim:
        found["sigma"] = (sigma.reshape(-1, *[1] * (len(shape) - 1)) if sigma.ndim == 1 else sigma).expand(
            max(shape[0], sigma.shape[0] if sigma.ndim in (1, len(shape)) else 1), *shape[1:]
        )
    if measured is not None:
        found["measured"] = measured.expand(shape)
    return found


def save(solution: Solution, path: pathlib.Path) -> pathlib.Path:
    """Write through a temporary name, so that the file is whole or not there."""
    path = pathlib.Path(path)
    if path.suffix not in (".nc", ".h5", ".hdf5"):
        raise InputError(
            f"cannot write {path}: the ending is {path.suffix or 'missing'!r}; solutions are netCDF-4 files, .nc"
        )
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    dataset = _split_complex(to_xarray(solution))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        dataset.to_netcdf(temporary, engine="h5netcdf")
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; choose another place or free space"
        ) from error
    return path


def _split_complex(dataset: xarray.Dataset) -> xarray.Dataset:
    for name in list(dataset.data_vars):
        array = dataset[name]
        if np.iscomplexobj(array):
            dataset = dataset.drop_vars(str(name)).assign({f"{name}_real": array.real, f"{name}_imaginary": array.imag})
    return dataset
