"""What snapshots of solutions leave behind: modes, interpolation points, and the range of parameters they were taken in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.solution import Code, Solution
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.files import load_tensors, save_tensors
from sciml.learned._pointwise import Pointwise
from sciml.learned._subspace import interpolation_points, proper_modes

__all__ = ["Reduction"]

FORMAT = "sciml reduction 1"
KEPT = 96  # modes


@dataclass(frozen=True, eq=False, repr=False)
class Reduction:
    """Modes ``(r, channel, *space)``, orthonormal in the space's inner product, with their singular values ``(r,)``.

    ``flux`` ``(m, channel, *space)`` are modes of the pointwise part ``g`` of the law, ``points`` ``(m,)`` where it is interpolated (both
    empty if the law has no such part). ``ranges`` are the smallest and largest value of every number among the problem's parameters,
    ``extremes`` those of the states, ``misfit`` the largest relative distance of a start from all modes, ``grid`` where it all lives.
    """

    modes: Tensor
    values: Tensor
    flux: Tensor
    flux_values: Tensor
    points: Tensor
    ranges: Mapping[str, tuple[float, float]]
    times: tuple[float, float]
    misfit: float
    grid: Mapping[str, Any]
    unknown: str
    states: Tensor

    @staticmethod
    def of(snapshots: Any) -> Reduction:
        """Of a Solution of an Evolution (a batch of members), of a generated data set, or of what ``load`` gave.

        Members that are not CONVERGED are left out. Snapshots count by the time that they stand for (trapezoidal rule).
        Raises InputError where there is nothing to learn from.
        """
        if isinstance(snapshots, Reduction):
            return snapshots
        if isinstance(snapshots, Solution):
            return _of_solution(snapshots)
        if hasattr(snapshots, "data_vars"):
            return _of_dataset(snapshots)
        raise InputError(
            f"ReducedModel takes a Solution of several members, a data set of sciml.generate, or ReducedModel.load(folder), not {type(snapshots).__name__}"
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``folder/reduction.safetensors``, whole or not at all."""
        tensors = {name: getattr(self, name) for name in ("modes", "values", "flux", "flux_values", "points", "states")}
        head = {
            "format": FORMAT,
            "ranges": dict(self.ranges),
            "times": self.times,
            "misfit": self.misfit,
            "grid": self.grid,
            "unknown": self.unknown,
        }
        save_tensors(Path(folder) / "reduction.safetensors", tensors, {"sciml": json.dumps(head)})

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Reduction:
        """Read what ``save`` wrote: a folder, or the file in it. Raises InputError if it is something else."""
        path = Path(folder)
        path = path / "reduction.safetensors" if path.is_dir() else path
        tensors, words = load_tensors(path)
        head = json.loads(words.get("sciml", "{}"))
        if head.get("format") != FORMAT:
            raise InputError(f"'{path}' is not a reduced model; give the folder that ReducedModel.save wrote")
        ranges = {name: (float(a), float(b)) for name, (a, b) in head["ranges"].items()}
        begin, end = head["times"]
        return Reduction(
            **tensors, ranges=ranges, times=(begin, end), misfit=head["misfit"], grid=head["grid"], unknown=head["unknown"]
        )  # fmt: skip

    def mismatch(self, problem: Evolution) -> str | None:
        """Why the modes do not suit the problem, in one sentence, or None."""
        grid, shape = problem.space.domain, tuple(self.modes.shape[1:])
        if tuple(problem.space.shape) != shape:
            return f"its modes have shape {shape}, the state {tuple(problem.space.shape)}; a reduced model keeps the grid of its snapshots"
        if _grid(grid) != self.grid:
            return "its snapshots were taken on another grid (extent, origin or sides); take new ones on this grid"
        if problem.unknown != self.unknown:
            return f"its snapshots are of {self.unknown!r}, the problem asks for {problem.unknown!r}"
        begin, end = self.times
        if problem.times[-1] > end * (1 + 1e-9) + 1e-12 or problem.begin < begin - 1e-12:
            return f"its snapshots cover the times {begin:g} to {end:g}, the problem asks for {problem.begin:g} to {problem.times[-1]:g}"
        for name, value in problem.parameters().items():
            if name not in self.ranges or value.numel() not in (1, problem.batch):
                continue
            low, high = self.ranges[name]
            slack = 1e-6 * max(abs(low), abs(high))
            bad = ((value < low - slack) | (value > high + slack)).flatten()
            if bool(bad.any()):
                at = int(bad.to(torch.int64).argmax())
                return (
                    f"the {name} of member {at} is {float(value.detach().flatten()[at]):g} and its snapshots range from "
                    f"{low:g} to {high:g}; take snapshots there too"
                )
        return None


def _grid(domain: object) -> dict[str, Any]:
    """What must agree of two domains, as JSON values."""
    found: dict[str, Any] = json.loads(json.dumps(domain.to_dict())) if isinstance(domain, Grid) else {}
    return found


def _of_solution(solution: Solution) -> Reduction:
    problem = solution.problem
    if not isinstance(problem, Evolution):
        raise InputError(f"{problem.name!r} is steady; a reduced model is made from the solution of an Evolution")
    good = (solution.codes == Code.CONVERGED).cpu()
    if not bool(good.any()):
        raise InputError(f"no member of {problem.name!r} is CONVERGED; snapshots must be certified")
    value = solution.value.detach().to("cpu", torch.float64)
    start = problem.start.detach().to("cpu", torch.float64).expand(len(value), *problem.space.shape)
    ranges = {}
    for name, tensor in problem.parameters().items():
        if tensor.numel() in (1, problem.batch) and not tensor.is_complex():
            numbers = tensor.detach().reshape(-1).expand(problem.batch)[good.to(tensor.device)]
            ranges[name] = float(numbers.min()), float(numbers.max())
    return _made(problem, start[good], value[good], problem.times, ranges)


def _of_dataset(data: Any) -> Reduction:
    """Movies of ``sciml.generate``; the problem is built again from the recipe in the file."""
    from sciml import catalogue

    recipe = json.loads(data.attrs.get("recipe", "{}"))
    if "source" not in recipe:
        raise InputError("the data set does not say which problem it was generated from; give a Solution instead")
    problem = catalogue.problem(recipe["source"], **recipe["settings"])
    if not isinstance(problem, Evolution) or "time" not in data[problem.unknown].dims:
        raise InputError(f"{problem.name!r} has no frames in time; a reduced model is made from an Evolution")
    frames = torch.from_numpy(np.asarray(data[problem.unknown].values)).to(torch.float64)
    value = frames.reshape(frames.shape[0], frames.shape[1], *problem.space.shape)
    times = tuple(float(t) for t in data["time"].values)
    if "start" in data and "sample" in data["start"].dims:
        start = torch.from_numpy(np.asarray(data["start"].values)).to(torch.float64).reshape(-1, *problem.space.shape)
    else:
        start = problem.start.to(torch.float64).expand(len(value), *problem.space.shape)
    ranges = {}
    for name, tensor in problem.parameters().items():
        if name in data and data[name].dims == ("sample",):
            ranges[name] = float(data[name].min()), float(data[name].max())
        elif tensor.numel() == 1:
            number = float(data.attrs.get(name, tensor.detach().reshape(-1)[0]))
            ranges[name] = number, number
    return _made(problem, start, value, times, ranges)


def _made(
    problem: Evolution,
    start: Tensor,
    value: Tensor,
    times: tuple[float, ...],
    ranges: Mapping[str, tuple[float, float]],
) -> Reduction:
    space = problem.space
    if times[0] > problem.begin:
        value, times = torch.cat((start.unsqueeze(1), value), 1), (problem.begin, *times)
    span = np.diff(np.asarray(times))
    shares = np.zeros(len(times))
    shares[:-1] += span / 2
    shares[1:] += span / 2
    shares = shares / max(shares.sum(), 1e-300) if len(times) > 1 else np.ones(1)
    rows = torch.from_numpy(shares).repeat(len(value)) / len(value)
    states = value.reshape(-1, *space.shape)
    weights = space.weights(torch.float64).cpu().expand(space.shape).reshape(-1)
    modes, values = proper_modes(states.flatten(1), weights, rows)
    modes, values = modes[:KEPT], values[:KEPT]
    first = start.flatten(1)
    rest = first - ((first * weights) @ modes.T) @ modes
    misfit = float((space.norm(rest.reshape(start.shape)) / space.norm(start).clamp_min(1e-300)).max())
    some = torch.cat(
        (states[:: max(1, len(states) // 6)][:6], states[states.flatten(1).abs().amax(1).argmax()].unsqueeze(0))
    )
    some = torch.cat((some, states.amax(0, keepdim=True), states.amin(0, keepdim=True)))
    form = Pointwise.of(problem, some)
    empty = torch.zeros((0, *space.shape), dtype=torch.float64)
    flux, flux_values, points = empty, torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    if form is not None:
        zero = form.inner(torch.zeros_like(states[:1]))
        found, flux_values = proper_modes((form.inner(states) - zero).flatten(1), weights, rows)
        found, flux_values = found[: 2 * KEPT], flux_values[: 2 * KEPT]
        points = interpolation_points(found)
        flux = found.reshape(-1, *space.shape)
    grid = _grid(space.domain)
    return Reduction(
        modes.reshape(-1, *space.shape), values, flux, flux_values, points, dict(ranges), (times[0], times[-1]), misfit, grid,
        problem.unknown, some,
    )  # fmt: skip
