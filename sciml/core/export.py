"""Solutions as xarray Datasets and netCDF-4 files."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.solution import Code, Solution
from sciml.domains.errors import InputError

if TYPE_CHECKING:
    import xarray

__all__ = ["save", "to_xarray"]


def _array(value: Tensor) -> Any:
    return value.detach().cpu().numpy()


def to_xarray(solution: Solution) -> xarray.Dataset:
    """Dims ``sample[, time], [channel,] x, y, z``; a single channel is dropped; checks and codes per member beside."""
    import xarray

    problem = solution.problem
    space, domain = problem.space, problem.space.domain
    names = list("xyz"[: space.dim]) if domain is not None else [f"index_{i}" for i in range(space.dim)]
    time = ["time"] if isinstance(problem, Evolution) else []
    coordinates: dict[str, Any] = {"sample": np.arange(solution.value.shape[0])}
    if domain is not None:
        for name, points in zip(names, domain.coordinates(), strict=True):
            coordinates[name] = (name, _array(points), {"units": "1", "axis": name.upper()})
    if isinstance(problem, Evolution):
        coordinates["time"] = ("time", np.asarray(problem.times), {"units": "1", "axis": "T"})

    def variable(value: Tensor, dims: list[str]) -> tuple[list[str], Any, dict[str, str]]:
        axis = len(dims)
        array = _array(value)
        if value.shape[axis] == 1:
            return [*dims, *names], array.squeeze(axis), {"units": "1"}
        return [*dims, "channel", *names], array, {"units": "1"}

    data: dict[str, Any] = {problem.unknown: variable(solution.value, ["sample", *time])}
    for name, value in problem.fields.items():
        if name not in data:
            full = value.expand(solution.value.shape[0], *value.shape[1:])
            data[name] = variable(full, ["sample"])
    data["code"] = (["sample"], _array(solution.codes), {"flag_meanings": " ".join(code.name for code in Code)})
    for check in solution.checks:
        target = {} if check.target is None else {"target": check.target}
        data[check.name.replace(" ", "_")] = (["sample"], _array(check.value), target)
    attributes: dict[str, Any] = {
        "title": problem.name,
        "solver": type(solution.solver).__name__,
        "certificate": str(solution),
        "recipe": "" if problem.recipe is None else problem.recipe.to_json(),
        "Conventions": "CF-1.8",
    }
    for name, value in problem.parameters().items():
        if value.ndim == 0:
            attributes[name] = float(value.detach())
    return xarray.Dataset(data, coordinates, attributes)


def save(solution: Solution, path: pathlib.Path) -> pathlib.Path:
    """Write through a temporary name, so that the file is whole or not there."""
    path = pathlib.Path(path)
    if path.suffix not in (".nc", ".h5", ".hdf5"):
        raise InputError(
            f"cannot write {path}: the ending is {path.suffix or 'missing'!r}; solutions are netCDF-4 files, .nc"
        )
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    dataset = to_xarray(solution)
    if any(torch.is_complex(t) for t in [solution.value]):
        dataset = _split_complex(dataset)
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
