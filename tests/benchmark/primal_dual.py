"""Total variation by primal-dual steps beside ODL's, in one process, in turn: `python -m tests.benchmark.primal_dual --out primal_dual.md`.

Task: 60 parallel views over half a turn of Shepp and Logan's head, 256 x 256 pixels, 363 bins, exact line integrals with 5 %
noise, float32; minimise `|A x - y|^2 / (2 sigma^2) + weight TV(x)`, TV isotropic with forward differences, no bounds, the
weight fixed (1000 is what the discrepancy principle finds, to 4 %).

Ours: `PrimalDual()` as it comes, on both routes of `Radon`. Peer: `pdhg` of ODL (Adler, Kohr, Oktem, doi:10.5281/zenodo.249479)
with ASTRA's CPU projector 'linear' (van Aarle et al., doi:10.1364/OE.24.025129), which interpolates as the ray-driven route
does, and ODL's own gradient and functionals. ODL takes one dual step for both operators, so its steps are three numbers:

* default: those that `pdhg` chooses by itself, for the operators and the objective `|A x - y|^2 + c TV(x)` as in ODL's examples;
* best: gradient times `s |A| / |grad|`, `tau sigma |L|^2 = 0.99` with the joint norm `|L|` found by ODL, `sigma / tau` swept by
  half decades, `s` by factors of two; the best for each goal by itself.

The sweep counts iterations with our projector put into ODL, as it is faster; so are those of the default, whose time is then
that of one iteration with ASTRA times their number. "ODL, our projector" tells what is due to the projector.

Goals, looked at every five iterations and outside of everybody's time. `gap`: the relative restricted duality gap of
`Inverse.gap` is 1e-3 or less, in float64, from the image and dual variables of each method (ODL's made feasible where
rounding has spoilt them; for ASTRA with its own projections). `objective`: `P(x) / P* - 1` is 1e-3 or less, P in float64 on
the method's route (ray-driven for ASTRA: 3e-5 of the data apart), P* from a long run in float64.

Seconds are of the iterations until then, median of the repetitions after a warm-up, methods in turn; ours contain the gaps
by which our solver stops. Ratios: ODL's best for the goal over the method, of medians; the spread is that of the repetitions
paired in order. "Processor" is time computed, which a busy machine disturbs less. One thread for everybody unless `--threads`
says otherwise (ASTRA's CPU projectors have one). Set-up: operators, tables and norms, the first time.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sciml
from sciml.core import Inverse
from sciml.core.solver import Context
from sciml.forward import FourierSlice, RayDriven, radon
from sciml.solvers import PrimalDual
from tests.benchmark._side_by_side import busy, version

N, VIEWS, WEIGHT, GOAL, EVERY = 256, 60, 1000.0, 1e-3, 5
GOALS = ("gap", "objective")
ROUTES = {"ray-driven": RayDriven(), "Fourier slice 1e-5": FourierSlice()}
RATIOS = tuple(10.0 ** (k / 2) for k in range(-5, 4))  # of dual to primal step
SCALES = (1.0, 0.5, 2.0)  # of the gradient

Look = Callable[["Found"], bool]


class Enough(Exception):
    """Ends ODL's iteration from its callback."""


@dataclass(frozen=True)
class Found:
    """Where an iteration has got to; made when somebody looks."""

    image: Callable[[], Tensor]
    duals: Callable[[], tuple[Tensor, Tensor]]  # of the data (whitened) and of the prior
    projected: Callable[[], tuple[Tensor, Tensor]] | None = (
        None  # A x, and A^T W q + K^T p by other projectors than ours
    )


def task(route: Any, weight: float = WEIGHT) -> Inverse[Any]:
    """The problem in float32."""
    return sciml.problem("ct", n=N, views=VIEWS, dtype=torch.float32, route=route).with_weight(weight).blind()


@dataclass
class Judge:
    """Gap and objective in float64."""

    problem: Inverse[Any]

    @cached_property
    def least(self) -> float:
        """The objective after many steps."""
        solver = PrimalDual(max_steps=700)
        answer = solver.run(self.problem.with_target(optimality=1e-9), None, Context())
        return float(self.problem.objective(answer.value))

    def gap(self, found: Found) -> float:
        """Relative, restricted."""
        prior: Any = self.problem.prior
        x = found.image().double()
        q, p = (part.double() for part in found.duals())
        p = prior.dual_prox(p, torch.ones(1), self.problem.weights())
        known = {} if found.projected is None else dict(zip(("z", "back"), found.projected(), strict=True))
        known = {name: value.double() for name, value in known.items()}
        return float(self.problem.gap(x, {"data": q, "prior": p}, **known))

    def excess(self, found: Found) -> float:
        """``P(x) / P* - 1``."""
        return float(self.problem.objective(found.image().double())) / self.least - 1


@dataclass
class Contestant:
    """``iterate(count, look)`` makes iterations, at most ``count``, and shows each one to ``look`` until it says enough."""

    name: str
    iterate: Callable[[int, Look], None]
    judge: Judge
    goals: tuple[str, ...] = GOALS
    setup: float = math.nan
    counts: dict[str, int | None] = field(default_factory=dict)
    course: list[tuple[int, float, float]] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {goal: [] for goal in GOALS})
    processor: dict[str, list[float]] = field(default_factory=lambda: {goal: [] for goal in GOALS})

    def count(self, most: int) -> None:
        """How many iterations each goal takes."""
        made, first = 0, dict.fromkeys(self.goals)
        self.course = []

        def look(found: Found) -> bool:
            nonlocal made
            made += 1
            if made % EVERY == 0:
                values = {"gap": self.judge.gap(found), "objective": self.judge.excess(found)}
                self.course.append((made, values["gap"], values["objective"]))
                for goal in self.goals:
                    if first[goal] is None and values[goal] <= GOAL:
                        first[goal] = made
            return None not in first.values()

        self.iterate(most, look)
        self.counts = first

    def time(self, keep: bool) -> None:
        """The seconds until each goal, once."""
        counts = [count for count in self.counts.values() if count is not None]
        if not counts:
            return
        stamps: list[tuple[float, float]] = []

        def look(found: Found) -> bool:
            stamps.append((time.perf_counter(), time.process_time()))
            return len(stamps) >= (max(counts) if keep else 20)

        begin = time.perf_counter(), time.process_time()
        self.iterate(max(counts), look)
        for goal, count in self.counts.items() if keep else ():
            if count is not None:
                self.seconds[goal].append(stamps[count - 1][0] - begin[0])
                self.processor[goal].append(stamps[count - 1][1] - begin[1])


def ours(name: str, route: Any) -> Contestant:
    """PrimalDual as it comes."""
    problem, solver = task(route), PrimalDual()
    radon._HELD.clear()
    begin = time.perf_counter()
    setup = solver.setup(problem)
    seconds = time.perf_counter() - begin

    def iterate(count: int, look: Look) -> None:
        state = solver.init(problem, setup, None)
        for _ in range(count):
            state = solver.step(problem, setup, state)
            found = Found(lambda s=state: s.image, lambda s=state: (s.q_found, s.p_found))  # type: ignore[misc]
            if look(found):
                return

    return Contestant(f"ours, {name}", iterate, Judge(task(route).to(dtype=torch.float64)), setup=seconds)


@dataclass
class Peer:
    """ODL's operators, functionals and steps for the task."""

    astra: bool
    judge: Judge

    def __post_init__(self) -> None:
        odl, tomo = importlib.import_module("odl"), importlib.import_module("odl.applications.tomo")
        problem = task(RayDriven())
        h, bins = 2.0 / N, problem.forward.codomain.shape[-1]
        turn = math.pi / VIEWS
        self.problem, self.odl = problem, odl
        self.space = odl.uniform_discr([-1, -1], [1, 1], [N, N], dtype="float32")
        beam = tomo.Parallel2dGeometry(
            odl.uniform_partition(-turn / 2, math.pi - turn / 2, VIEWS),
            odl.uniform_partition(-bins * h / 2, bins * h / 2, bins),
        )
        self.ray = tomo.RayTransform(self.space, beam, impl="astra_cpu" if self.astra else ours_inside(problem))
        self.gradient = odl.Gradient(self.space, method="forward", pad_mode="order0")
        self.data = self.ray.range.element(problem.data[0, 0].numpy())
        self.cell, self.bin = float(self.space.cell_volume), float(self.ray.range.weighting.const)
        x = torch.rand(1, 1, N, N, generator=torch.Generator().manual_seed(0))
        there = torch.from_numpy(self.ray(self.space.element(x[0, 0].numpy())).asarray())
        slopes = torch.stack(
            [torch.from_numpy(g.asarray()) for g in self.gradient(self.space.element(x[0, 0].numpy()))]
        )
        assert (there - problem.forward(x)[0, 0]).norm() < 1e-3 * there.norm()  # the same task
        assert (slopes - problem.prior.operator(x)[0]).norm() < 1e-5 * slopes.norm()

    @cached_property
    def norms(self) -> tuple[float, float]:
        """Of the projector and of the gradient."""
        return tuple(self.odl.power_method_opnorm(op, maxiter=30) for op in (self.ray, self.gradient))  # type: ignore[return-value]

    def contestant(
        self, name: str, ratio: float | None, scale: float = 1.0, goals: tuple[str, ...] = GOALS
    ) -> Contestant:
        """``pdhg`` with a ratio of the steps and a scale of the gradient; without a ratio, as it comes."""
        odl, sigma = self.odl, float(self.problem.noise.sigma)
        begin = time.perf_counter()
        whole = 2 * sigma**2 * self.bin  # the objective is ours times this: |A x - y|^2 + c TV
        b = 1.0 if ratio is None else scale * self.norms[0] / self.norms[1]
        both = odl.BroadcastOperator(self.ray, self.gradient if ratio is None else b * self.gradient)
        fit = odl.functionals.L2NormSquared(self.ray.range).translated(self.data)
        variation = (whole * WEIGHT / b) * odl.functionals.GroupL1Norm(self.gradient.range)
        outer, none = odl.functionals.SeparableSum(fit, variation), odl.functionals.ZeroFunctional(self.space)
        if ratio is None:
            steps = dict(zip(("tau", "sigma"), odl.solvers.pdhg_stepsize(both), strict=True))
        else:
            norm = odl.power_method_opnorm(both, maxiter=60)
            steps = {"tau": math.sqrt(0.99 / ratio) / norm, "sigma": math.sqrt(0.99 * ratio) / norm}
        seconds = time.perf_counter() - begin

        def iterate(count: int, look: Look) -> None:
            x, dual = self.space.zero(), both.range.zero()

            def image() -> Tensor:
                return torch.from_numpy(x.asarray())[None, None].clone()

            def duals() -> tuple[Tensor, Tensor]:
                p = torch.stack([torch.from_numpy(part.asarray()) for part in dual[1]])[None]
                q = torch.from_numpy(dual[0].asarray())[None, None]
                return q * (sigma * self.bin / whole), p * (b * self.cell / whole)

            def projected() -> tuple[Tensor, Tensor]:
                back = both.adjoint(dual)
                z = torch.from_numpy(self.ray(x).asarray())[None, None]
                return z, torch.from_numpy(back.asarray())[None, None] * (self.cell / whole)

            def callback(_: Any) -> None:
                if look(Found(image, duals, projected if self.astra else None)):
                    raise Enough

            try:
                odl.solvers.pdhg(x, none, outer, both, count, callback=callback, y=dual, **steps)
            except Enough:
                return

        return Contestant(name, iterate, self.judge, goals, seconds)

    def sweep(self, most: int) -> tuple[list[dict[str, Any]], dict[str, tuple[float, float]]]:
        """Iterations for every ratio and scale, and the best pair for each goal."""
        rows, best, fewest = [], {}, dict.fromkeys(GOALS, most)
        for scale in SCALES:
            for ratio in RATIOS if scale == 1 else RATIOS[2:6]:
                one = self.contestant("", ratio, scale)
                one.count(max(fewest.values()) if rows and scale != 1 else most)
                rows.append({"ratio": ratio, "scale": scale, **one.counts, "last": one.course[-1]})
                for goal in GOALS:
                    count = one.counts[goal]
                    if count is not None and (goal not in best or count < fewest[goal]):
                        best[goal], fewest[goal] = (ratio, scale), count
        return rows, best


def ours_inside(problem: Inverse[Any]) -> type:
    """Our projector as a back-end of ODL."""

    class Inside:
        def __init__(self, geometry: Any, vol_space: Any, proj_space: Any) -> None:
            self.image, self.data = vol_space, proj_space

        def call_forward(self, x: Any, out: Any = None, **unused: Any) -> Any:
            z = problem.forward(torch.from_numpy(x.asarray())[None, None])[0, 0].numpy()
            if out is None:
                return self.data.element(z)
            out.data[:] = z
            return out

        def call_backward(self, y: Any, out: Any = None, **unused: Any) -> Any:
            x = problem.forward.adjoint(torch.from_numpy(y.asarray())[None, None])[0, 0].numpy()
            x = x * (float(self.data.weighting.const) / float(self.image.weighting.const))
            if out is None:
                return self.image.element(x)
            out.data[:] = x
            return out

    return Inside


def spread(values: list[float], digits: int = 2) -> str:
    """Median (least - most)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def table(contestants: list[Contestant], goal: str) -> list[str]:
    """The rows of one goal."""
    best = next((c for c in contestants if c.name.startswith("ODL + ASTRA, best") and goal in c.goals), None)
    titles = ("method", "set-up s", "iterations", "ms each", "seconds (least - most)", "processor s")
    titles += ("ODL + ASTRA's best over it: clock (spread)", "processor")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for c in contestants:
        if goal not in c.goals:
            continue
        count, seconds, used = c.counts[goal], c.seconds[goal], c.processor[goal]
        cells = [
            c.name,
            "" if math.isnan(c.setup) else f"{c.setup:.1f}",
            f"{count}" if count else f"more than {c.course[-1][0]}",
        ]
        if count and seconds:
            cells += [
                f"{1e3 * statistics.median(seconds) / count:.1f}",
                spread(seconds),
                f"{statistics.median(used):.2f}",
            ]
            if best is not None and best.seconds[goal]:
                paired = [a / b for a, b in zip(best.seconds[goal], seconds, strict=True)]
                cells += [
                    f"{statistics.median(best.seconds[goal]) / statistics.median(seconds):.1f} ({min(paired):.1f} - {max(paired):.1f})",
                    f"{statistics.median(best.processor[goal]) / statistics.median(used):.1f}",
                ]
        elif best is not None and best.seconds[goal] and "default" in c.name:
            each, computed = (
                statistics.median(v[goal]) / (best.counts[goal] or 1) for v in (best.seconds, best.processor)
            )
            many = count or c.course[-1][0]
            more = "" if count else "more than "
            cells += [f"{1e3 * each:.1f}", f"{more}{many * each:.0f}", f"{more}{many * computed:.0f}"]
            cells += [f"{'' if count else 'less than '}{(best.counts[goal] or 1) / many:.2f}"] * 2
        lines.append(f"| {' | '.join(cells + [''] * (len(titles) - len(cells)))} |")
    return lines


def solves(repetitions: int) -> list[str]:
    """The whole call, which stops by its own gap at half the target and is judged again."""
    lines = ["", "`sciml.solve(problem, PrimalDual())`, set-up known, to its own certificate:", ""]
    lines += ["| route | steps | gap certified | seconds (least - most) |", "|---|---|---|---|"]
    for name, route in ROUTES.items():
        seconds = []
        for _ in range(repetitions):
            begin = time.perf_counter()
            solution = sciml.solve(task(route), PrimalDual())
            seconds.append(time.perf_counter() - begin)
        certified = float(solution.check("optimality").value)
        lines.append(f"| {name} | {int(solution.stats['steps'])} | {certified:.1e} | {spread(seconds)} |")
    return lines


def peers(most: int, ratio: float | None) -> tuple[list[Contestant], list[str], list[dict[str, Any]]]:
    """ODL's rows, a note for each that cannot run, and the sweep."""
    try:
        judge = Judge(task(RayDriven()).to(dtype=torch.float64))
        inside = Peer(False, judge)
    except ImportError as error:
        return [], [f"ODL left out: {error}"], []
    rows, best = inside.sweep(most) if ratio is None else ([], dict.fromkeys(GOALS, (ratio, 1.0)))
    made, notes = [], []
    try:
        peer = Peer(True, judge)
    except (ImportError, RuntimeError) as error:
        peer, notes = inside, [f"ASTRA left out: {error}"]
    for goal, (ratio, scale) in best.items():
        text = f"sigma/tau = {ratio:.2g}, s = {scale:g}"
        if peer.astra:
            made.append(peer.contestant(f"ODL + ASTRA, best for {goal} ({text})", ratio, scale, (goal,)))
        made.append(inside.contestant(f"ODL, our projector, best for {goal} ({text})", ratio, scale, (goal,)))
    made.append(inside.contestant("ODL + ASTRA, default", None))
    made[-1].setup = math.nan  # of our projector
    return made, notes, rows


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the table, and every number beside it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a Markdown file; the numbers go to the same name with .json")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--most", type=int, default=500, help="iterations of the sweep")
    parser.add_argument("--ratio", type=float, help="of ODL's steps at s = 1, instead of a sweep")
    parser.add_argument("--default-most", type=int, default=3000, help="iterations of ODL's default steps")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")
    shares = [busy()]
    contestants = [ours(name, route) for name, route in ROUTES.items()]
    others, notes, swept = peers(chosen.most, chosen.ratio)
    contestants += others
    for c in contestants:
        c.count(chosen.default_most if "default" in c.name else 3 * chosen.most)
    timed = [c for c in contestants if "default" not in c.name]
    for repetition in range(chosen.repetitions + 1):
        for c in timed:
            c.time(repetition > 0)
        shares.append(busy())
    names = ("torch", "finufft", "odl", "astra-toolbox")
    lines = [
        f"{N} x {N}, {VIEWS} views, 363 bins, weight {WEIGHT:g}, float32; threads: {chosen.threads}; {chosen.repetitions} repetitions.",
        f"Cores {os.cpu_count()}, {platform.machine()}, others used {100 * statistics.mean(shares):.0f} % of the machine on average; "
        f"{', '.join(f'{name} {version(name)}' for name in names)}.",
        *notes,
    ]
    for goal, title in (("gap", "Relative duality gap 1e-3"), ("objective", "Objective within 1e-3 of the least")):
        lines += ["", f"{title}:", "", *table(contestants, goal)]
    lines += solves(chosen.repetitions)
    if swept:
        lines += ["", "Sweep of ODL's steps, iterations (with our projector):", ""]
        lines += ["| s | sigma / tau | to the gap | to the objective |", "|---|---|---|---|"]
        for row in swept:
            counts = (str(row[goal]) if row[goal] else f"more than {row['last'][0]}" for goal in GOALS)
            lines.append(f"| {row['scale']:g} | {row['ratio']:.2g} | {' | '.join(counts)} |")
    print("\n".join(lines))
    if chosen.out:
        record = {
            "others": shares,
            "versions": {name: version(name) for name in names},
            "sweep": swept,
            "methods": [
                {key: getattr(c, key) for key in ("name", "setup", "counts", "course", "seconds", "processor")}
                for c in contestants
            ],
        }
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text("\n".join(lines) + "\n")
        chosen.out.with_suffix(".json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
