"""The Radon transform beside its peers, in one process, in turn: `python -m tests.benchmark.radon --out radon.md`.

Task: 180 views over half a turn of a 256 x 256 image, 363 bins as wide as a pixel, float32, one image and a batch of eight.
Peers: ASTRA's CPU projectors 'line' and 'linear' (van Aarle et al., Opt. Express 24, 2016, doi:10.1364/OE.24.025129), which
use one thread; deepinv's Tomography (Tachella et al., J. Open Source Softw. 2025, arXiv:2505.20160), whose adjoint is the
derivative of its projector. Where deepinv as a whole cannot be imported its projector is loaded from its own file, with the
derivative made in the same way. The others use `--threads`. Median of the repetitions after a warm-up, methods in turn,
each waiting for an idle machine; set-up is the first call less the second. Ratios are of the medians of projection and
back-projection together: of seconds on the clock, and of processor time, which a busy machine disturbs less (with several
threads it counts their waiting for each other, so compare it with one).

Errors, relative in L2 and in float64 where a method has it: `head` against the exact line integrals of the ellipses of the
Shepp-Logan head, image pixels being exact area fractions; `blobs` against those of Gaussians of two pixels' width. ASTRA's
axes are tried in every order and the best is told; deepinv places its bins otherwise, and its errors would only say so.
Floor: the bytes of one sparse matrix over the bandwidth of reading an array that no cache holds; matrices this small fit
partly into a large cache, so the floor can be passed.

The large case (1024 x 1024, 720 views) runs in processes of its own, whose peak memory is told.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml import checks
from sciml.domains.pixels import Pixels
from sciml.forward import radon
from sciml.forward.radon import FourierSlice, Radon, RayDriven
from tests.benchmark._side_by_side import version, wait_for_idle
from tests.forward import ellipses

N, VIEWS, BATCH = 256, 180, 8
EXTENT = 2.0
ROUTES = {
    "ray-driven": RayDriven(),
    "Fourier slice 1e-5": FourierSlice(1e-5),
    "Fourier slice 1e-3": FourierSlice(1e-3),
}


@dataclass
class Contestant:
    """What is timed: projection and back-projection of the same image; ``scan`` gives ``(views, bins)`` of any image."""

    name: str
    forward: Callable[[], Any]
    adjoint: Callable[[], Any]
    scan: Callable[[Tensor], Tensor]
    images: int = 1
    floor: float = 0.0
    transposed: float = math.nan
    setup: float = math.nan
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"forward": [], "adjoint": []})
    processor: dict[str, list[float]] = field(default_factory=lambda: {"forward": [], "adjoint": []})


def angles(dtype: torch.dtype = torch.float64) -> Tensor:
    """Evenly spaced over half a turn."""
    return (torch.arange(VIEWS, dtype=torch.float64) * (math.pi / VIEWS)).to(dtype)


def operator(route: Any, n: int = N, dtype: torch.dtype = torch.float32) -> Radon:
    """The scan of the task."""
    return Radon(Pixels((n, n), (EXTENT, EXTENT)), angles(dtype), route=route)


def ours(name: str, route: Any, images: int, speed: float) -> Contestant:
    """One of our routes."""
    op = operator(route)
    double = operator(route, dtype=torch.float64)
    x = torch.rand((images, *op.space.shape), generator=torch.Generator().manual_seed(0))
    y = torch.rand((images, *op.codomain.shape), generator=torch.Generator().manual_seed(1))
    prepared: Any = op._prepared()
    floor = (
        sum(prepared._bytes(b) for b in prepared.blocks) / 2 / speed / images if hasattr(prepared, "blocks") else 0.0
    )
    label = name if images == 1 else f"{name}, batch of {images}, per image"
    made = Contestant(label, lambda: op(x), lambda: op.adjoint(y), lambda u: double(u[None, None])[0, 0], images, floor)
    made.transposed = float(checks.adjoint(double).value)
    return made


def astra(kind: str) -> Contestant:
    """A CPU projector of ASTRA."""
    module = importlib.import_module("astra")
    op = operator(RayDriven())
    image, data = np.zeros((N, N), dtype=np.float32), np.zeros((VIEWS, op.bins), dtype=np.float32)
    volume = module.create_vol_geom(N, N)
    beam = module.create_proj_geom("parallel", 1.0, op.bins, angles().numpy())
    projector = module.create_projector(kind, beam, volume)
    where = {"VolumeDataId": module.data2d.link("-vol", volume, image), "ReconstructionDataId": None}
    where["ProjectionDataId"] = module.data2d.link("-sino", beam, data)

    def algorithm(name: str, volume_key: str) -> int:
        settings = module.astra_dict(name)
        settings["ProjectorId"] = projector
        settings["ProjectionDataId"] = where["ProjectionDataId"]
        settings[volume_key] = where["VolumeDataId"]
        return int(module.algorithm.create(settings))

    there, back = algorithm("FP", "VolumeDataId"), algorithm("BP", "ReconstructionDataId")

    def scan(u: Tensor) -> Tensor:
        image[:] = u.numpy()
        module.algorithm.run(there)
        return torch.from_numpy(data.copy()).double() * (EXTENT / N)

    generator = np.random.default_rng(0)
    x, y = generator.random(image.shape), generator.random(data.shape)
    there_x = scan(torch.from_numpy(x)).numpy() / (EXTENT / N)
    data[:] = y
    module.algorithm.run(back)
    mismatch = abs(float((there_x * y).sum() - (image * x).sum()))
    made = Contestant(f"ASTRA {kind}", lambda: module.algorithm.run(there), lambda: module.algorithm.run(back), scan)
    made.transposed = mismatch / float(np.linalg.norm(there_x) * np.linalg.norm(y))
    return made


def deepinv() -> Contestant:
    """Tomography, or, if the package cannot be imported, the projector in its file with its derivative as adjoint."""
    degrees = torch.rad2deg(angles(torch.float32))
    try:
        physics = importlib.import_module("deepinv.physics").Tomography(degrees, N, normalize=False)
        name, there = "deepinv Tomography", physics.A
        back = physics.A_adjoint
    except (ImportError, RuntimeError):
        found = importlib.util.find_spec("deepinv")
        if found is None or found.origin is None:
            raise
        file = Path(found.origin).parent / "physics" / "functional" / "radon.py"
        spec = importlib.util.spec_from_file_location("deepinv_radon", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        name, there = "deepinv Tomography (its projector alone)", module.Radon(N, degrees, circle=False)
        pulled = torch.func.vjp(there, torch.zeros(1, 1, N, N))[1]
        back = lambda v: pulled(v)[0]  # noqa: E731
    x = torch.rand((1, 1, N, N), generator=torch.Generator().manual_seed(0))
    y = torch.rand(there(x).shape, generator=torch.Generator().manual_seed(1))

    def scan(u: Tensor) -> Tensor:
        return there(u[None, None].float())[0, 0].T.double() * (EXTENT / N)

    made = Contestant(name, lambda: there(x), lambda: back(y), scan)
    image, picture = there(x), back(y)
    mismatch = float(((image * y).double().sum() - (picture * x).double().sum()).abs())
    made.transposed = mismatch / float(image.norm() * y.norm())
    return made


def best_error(scan: Callable[[Tensor], Tensor], image: Tensor, exact: Tensor, peer: bool) -> float:
    """The relative error; of a peer the smallest over all ways of ordering the axes."""
    if not peer:
        return float((scan(image) - exact).norm() / exact.norm())
    errors = []
    for swap, flips in itertools.product((False, True), ([], [0], [1], [0, 1])):
        data = scan((image.T if swap else image).flip(flips).contiguous())
        if data.shape == exact.shape:
            errors += [float((d - exact).norm() / exact.norm()) for d in (data, data.flip(1))]
    return min(errors, default=math.nan)


def read_bandwidth() -> float:
    """Bytes per second of summing 512 MB."""
    a = torch.ones(2**27)
    best = math.inf
    for _ in range(7):
        begin = time.perf_counter()
        a.sum()
        best = min(best, time.perf_counter() - begin)
    return a.nbytes / best


def measure(contestants: list[Contestant], repetitions: int, patience: float) -> list[float]:
    """Fill in the seconds, methods in turn; returns what others used of the machine before each measurement."""
    shares = []
    for repetition in range(repetitions + 1):
        for one in contestants:
            share = wait_for_idle(patience)
            for name, work in (("forward", one.forward), ("adjoint", one.adjoint)):
                work()  # caches hold its own data, as in an iteration
                begin, used = time.perf_counter(), time.process_time()
                work()
                if repetition:
                    one.seconds[name].append((time.perf_counter() - begin) / one.images)
                    one.processor[name].append((time.process_time() - used) / one.images)
            shares.append(share)
    return shares


def timed_setup(route: Any) -> float:
    """Seconds of the first projection and back-projection, less those of the second ones."""
    op = operator(route)
    x, y = torch.ones(1, *op.space.shape), torch.ones(1, *op.codomain.shape)
    seconds = []
    radon._HELD.clear()
    for _ in range(2):
        begin = time.perf_counter()
        op(x)
        op.adjoint(y)
        seconds.append(time.perf_counter() - begin)
    return seconds[0] - seconds[1]


def accuracy() -> list[str]:
    """Errors of the routes as the image is refined."""
    lines = ["", "| route | image | 64 | 128 | 256 | order |", "|---|---|---|---|---|---|"]
    routes = {**ROUTES, "Fourier slice 1e-12": FourierSlice(1e-12)}
    for name, route in routes.items():
        for kind in ("head", "blobs"):
            errors = []
            for n in (64, 128, 256):
                op = operator(route, n, torch.float64)
                if kind == "head":
                    image = ellipses.image(ellipses.HEAD, op.pixels)
                    exact = ellipses.sinogram(ellipses.HEAD, op.angles, op.positions)
                else:  # of fixed size: 2, 4 and 8 pixels wide
                    image, exact = ellipses.blobs(op.pixels, op.angles, op.positions, EXTENT / 32)
                errors.append(float((op(image) - exact).norm() / exact.norm()))
            order = math.log2(errors[0] / errors[-1]) / 2
            lines.append(f"| {name} | {kind} | {' | '.join(f'{e:.1e}' for e in errors)} | {order:.1f} |")
    return lines


def peak_memory() -> float:
    """Bytes of memory that this process had at most; the usual counter would include its parent's."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    return next(float(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def large(name: str) -> dict[str, Any]:
    """1024 x 1024, 720 views, in this process."""
    routes = {
        "ray-driven": RayDriven(),
        "ray-driven, memory=0": RayDriven(memory=0),
        "Fourier slice 1e-5": FourierSlice(),
    }
    op = Radon(Pixels((1024, 1024), (2.0, 2.0)), torch.arange(720) * (math.pi / 720), route=routes[name])
    op = replace(op, angles=op.angles.float())
    x, y = torch.rand(1, *op.space.shape), torch.rand(1, *op.codomain.shape)
    record: dict[str, Any] = {"route": name}
    for label, work in (("forward", lambda: op(x)), ("adjoint", lambda: op.adjoint(y))):
        seconds = []
        for _ in range(3):
            begin = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - begin)
        record[label], record[f"first {label}"] = min(seconds[1:]), seconds[0]
    record["peak GB"] = peak_memory() / 1e9
    return record


def table(contestants: list[Contestant], speed: float) -> list[str]:
    """The rows of the main table."""
    clock = {c.name: sum(statistics.median(v) for v in c.seconds.values()) for c in contestants}
    used = {c.name: sum(statistics.median(v) for v in c.processor.values()) for c in contestants}
    peers = [name for name in clock if name == "ASTRA line" or name.startswith("deepinv")]
    titles = [
        "method",
        "set-up s",
        "forward ms (least - most)",
        "adjoint ms (least - most)",
        "processor ms, both",
        *(f"times {name.split(' (')[0]}: clock, processor" for name in peers),
        "floor ms",
        "adjointness",
        "head",
        "blobs",
    ]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for c in contestants:
        peer = c.name.startswith(("ASTRA", "deepinv"))
        op = operator(RayDriven(), dtype=torch.float64)
        head = (
            ellipses.image(ellipses.HEAD, op.pixels)[0, 0],
            ellipses.sinogram(ellipses.HEAD, op.angles, op.positions)[0, 0],
        )
        image, exact = ellipses.blobs(op.pixels, op.angles, op.positions, 2 * EXTENT / N)
        pairs = [head, (image[0, 0], exact[0, 0])]
        errors = [math.nan if "deepinv" in c.name else best_error(c.scan, *pair, peer) for pair in pairs]
        cells = [c.name, "" if math.isnan(c.setup) else f"{c.setup:.2f}"]
        for values in c.seconds.values():
            ms = sorted(1e3 * v for v in values)
            cells.append(f"{statistics.median(ms):.2f} ({ms[0]:.2f} - {ms[-1]:.2f})")
        cells += [f"{1e3 * used[c.name]:.2f}"]
        cells += [f"{clock[name] / clock[c.name]:.1f}, {used[name] / used[c.name]:.1f}" for name in peers]
        cells += [
            f"{1e3 * c.floor:.2f}" if c.floor else "",
            f"{c.transposed:.0e}",
            *("" if math.isnan(e) else f"{e:.1e}" for e in errors),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the table, and every number beside it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--patience", type=float, default=5.0, help="seconds to wait for an idle machine, each time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="without the large case")
    parser.add_argument("--large", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    if chosen.large:
        print(json.dumps(large(chosen.large)))
        return
    speed = read_bandwidth()
    contestants, notes = [], []
    for name, make in (
        ("ASTRA", lambda: astra("line")),
        ("ASTRA", lambda: astra("linear")),
        ("deepinv", deepinv),
    ):
        try:
            contestants.append(make())
        except (ImportError, RuntimeError) as error:
            notes.append(f"{name} left out: {str(error).splitlines()[0]}")
    for name, route in ROUTES.items():
        contestants.append(ours(name, route, 1, speed))
        contestants[-1].setup = timed_setup(route)
    contestants += [ours(name, route, BATCH, speed) for name, route in list(ROUTES.items())[:2]]
    shares = measure(contestants, chosen.repetitions, chosen.patience)
    names = ("torch", "finufft", "astra-toolbox", "deepinv")
    lines = [
        f"{N} x {N}, {VIEWS} views, 363 bins, float32; threads: {chosen.threads} (ASTRA: 1); {chosen.repetitions} repetitions.",
        f"Cores {os.cpu_count()}, {platform.machine()}, read {speed / 1e9:.0f} GB/s, others used {100 * statistics.mean(shares):.0f} % "
        f"of the machine on average; {', '.join(f'{name} {version(name)}' for name in names)}.",
        *notes,
        "",
        *table(contestants, speed),
        *accuracy(),
    ]
    record: dict[str, Any] = {
        "read_bandwidth": speed,
        "others": shares,
        "versions": {name: version(name) for name in names},
        "methods": [
            {
                "name": c.name,
                "setup": c.setup,
                "adjointness": c.transposed,
                "seconds": c.seconds,
                "processor": c.processor,
            }
            for c in contestants
        ],
    }
    if not chosen.small:
        lines += ["", "1024 x 1024, 720 views, float32, a process each (first call: with set-up):", ""]
        lines += ["| route | forward s (first) | adjoint s (first) | peak memory GB |", "|---|---|---|---|"]
        record["large"] = []
        for name in ("ray-driven", "ray-driven, memory=0", "Fourier slice 1e-5"):
            command = [sys.executable, "-m", "tests.benchmark.radon", "--large", name]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            record["large"].append(row)
            lines.append(
                f"| {name} | {row['forward']:.2f} ({row['first forward']:.1f}) | {row['adjoint']:.2f} "
                f"({row['first adjoint']:.1f}) | {row['peak GB']:.2f} |"
            )
    print("\n".join(lines))
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text("\n".join(lines) + "\n")
        chosen.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
