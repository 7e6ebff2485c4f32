"""What the priors are worth: `python -m tests.benchmark.reconstruction [--only ellipses head resonance sampler tooth camera] [--data FOLDER]`.

* ellipses: 16 random images of 128^2 pixels, 30 views, 5 % noise, in the setting of learned primal-dual reconstruction (the
  seed is 20000; no weights were trained or chosen on it). Line integrals are those of pixels of half the size.
  PSNR by the range of each truth, mean over the images. The truth is never read by a solver: windows of filtered
  back-projection are the exception, the best of all is taken, in its favour; the weight of total variation comes from the
  discrepancy principle, that of the learned proximal network from the noise of its training.
* head: the same for the phantom of Shepp and Logan, with the line integrals of the pixels themselves: there the figures often quoted
  for this setting were found (filtered back-projection 19.75, total variation 28.06, learned primal-dual 38.28 dB:
  Adler and Oktem, arXiv:1707.06474, trained on ellipses). One image; every learned method here was trained on ellipses.
* resonance: eight random images with a smooth phase, eight coils, a quarter of k-space. The diffusion prior is that of real images: the phase is
  found by `slow_phase` in the image of conjugate gradients, or is that of the simulation, for comparison.
* sampler: decomposed sampling of these images: processor time beside that of the network, and how often intervals of 19 samples
  hold the truth, over twelve images.
* tooth (with --data, the folder that holds ct_tooth/tooth.h5): every sixth of 181 views, judged on the 150 that were left
  out, and against total variation from all 181 (its weight by the discrepancy, before anything else is run).
* camera: a photograph blurred and noisy, deblurred with three priors. Needs scikit-image.

Writes Markdown and, beside it, JSON; pictures with --pictures FOLDER.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sciml
from sciml import show
from sciml.catalogue import folder
from sciml.domains import Ellipses, Pixels, member_generator
from sciml.forward import Cosine, Hamming, Hann, RamLak, SheppLogan
from sciml.metrics import psnr, ssim
from sciml.priors import MagnitudePhase, TotalVariation, Wavelet, slow_phase
from sciml.samplers import DecomposedDiffusion
from sciml.solvers import ADMM, Discrepancy, FilteredBackprojection, LeastSquares, PlugAndPlay, PrimalDual

WINDOWS = [
    kind(cutoff) for kind in (RamLak, SheppLogan, Cosine, Hamming, Hann) for cutoff in (1.0, 0.7, 0.5, 0.35, 0.25)
]
Row = dict[str, Any]


def timed(problem: Any, solver: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solution = sciml.solve(problem, solver)
    return solution, time.perf_counter() - began


def row(name: str, solution: Any, seconds: float, **told: float) -> Row:
    """One line of a table."""
    certified = int((solution.codes == 1).sum())
    chi = next(check.value for check in solution.checks if check.name.startswith("chi-square"))
    return {
        "reconstruction": name,
        **{key: round(value, 2) for key, value in told.items()},
        "chi^2/dof": round(float(chi.mean()), 3),
        "certified": f"{certified} of {len(solution.codes)}",
        "seconds": round(seconds, 1),
    }


def ellipses(count: int, pictures: Path | None) -> list[Row]:
    """Random ellipses."""
    posed = sciml.problem("ct", batch=count, seed=20000, dtype=torch.float32)
    return compared(posed, None if pictures is None else pictures / "ellipses.png")


def head(pictures: Path | None) -> list[Row]:
    """The head phantom."""
    posed = sciml.problem("ct", finer=1, dtype=torch.float32)
    return compared(posed, None if pictures is None else pictures / "head.png")


def compared(posed: Any, picture: Path | None) -> list[Row]:
    """A formula, total variation, learned priors, samples."""
    truth = posed.truth
    rows, shown = [], []

    def add(name: str, problem: Any, solver: Any) -> None:
        solution, seconds = timed(problem, solver)
        quality = psnr(solution.value, truth)
        rows.append(row(name, solution, seconds, **{"PSNR (dB)": float(quality.mean()), "worst": float(quality.min())}))
        shown.append((name, solution))

    bare = posed.with_prior(None)
    trial = {window: psnr(posed.forward.backproject_filtered(posed.data, window), truth).mean() for window in WINDOWS}
    window = max(trial, key=lambda one: float(trial[one]))
    add(f"filtered back-projection, {window}", bare, FilteredBackprojection(window))
    add("total variation", posed.with_prior(TotalVariation()), Discrepancy(PrimalDual()))
    learned = sciml.pretrained("lpn-ellipses")
    add("learned proximal network", posed.with_prior(learned), Discrepancy(ADMM(max_steps=100)))
    add("its mean over mirror images", posed.with_prior(learned.mirrored()), Discrepancy(ADMM(max_steps=100)))
    unfolded = sciml.pretrained("unfolded-ellipses")
    add(f"unfolded, {unfolded.stages} steps", posed.with_prior(unfolded), unfolded.solver())
    diffusion = replace(sciml.pretrained("diffusion-ellipses"), precision=torch.bfloat16)
    sampler = DecomposedDiffusion(steps=49, samples=8, seed=0)
    add("diffusion, mean of 8 samples of 49 evaluations", posed.with_prior(diffusion), sampler)
    inside = shown[-1][1].samples.sort(0).values
    within = ((inside[0] <= truth) & (truth <= inside[-1])).double().mean()
    rows[-1]["between least and greatest sample"] = f"{100 * float(within):.0f} % (ideal 78 %)"
    if picture is not None:
        show.compare([s for _, s in shown], picture, names=[n for n, _ in shown])
    return rows


def resonance(count: int = 8, seed: int = 700) -> list[Row]:
    """A quarter of k-space: conjugate gradients, total variation, samples."""
    path = folder("problems") / "mri.py"
    spec = importlib.util.spec_from_file_location("mri", path)
    assert spec is not None and spec.loader is not None
    simulation: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(simulation)
    posed = sciml.problem("mri", batch=count, seed=seed, n=128).to(torch.float32)
    diffusion = replace(sciml.pretrained("diffusion-ellipses"), precision=torch.bfloat16)
    pixels, rows = Pixels((128, 128), (2.0, 2.0)), []

    def quality(x: Any) -> Any:
        error = (x - posed.truth).abs().square().flatten(1).mean(1)
        return 10 * torch.log10(posed.truth.abs().flatten(1).amax(1) ** 2 / error)

    def add(name: str, solution: Any, seconds: float) -> None:
        found = quality(solution.value)
        rows.append(row(name, solution, seconds, **{"PSNR (dB)": float(found.mean()), "worst": float(found.min())}))

    add("conjugate gradients (SENSE)", *timed(posed.with_prior(None), LeastSquares()))
    add("total variation", *timed(posed.with_prior(TotalVariation()), Discrepancy(PrimalDual())))
    rough = sciml.solve(posed.with_prior(None)).value
    for name in ("found in the first image", "that of the simulation"):
        values, began = [], time.perf_counter()
        for i in range(count):
            if name == "that of the simulation":
                turn = simulation.turned(simulation.smooth_phase(member_generator("mri", seed, i, "phase")), pixels)
                phase = turn.angle().float()
            else:
                phase = slow_phase(rough[i : i + 1])[0]
            one = posed.member(i).with_prior(MagnitudePhase(diffusion, phase=phase))
            values.append(timed(one, DecomposedDiffusion(steps=49, samples=8, seed=0))[0].value)
        found = quality(torch.cat(values))
        told = {"PSNR (dB)": round(float(found.mean()), 2), "worst": round(float(found.min()), 2)}
        row_name = f"diffusion, phase {name}, mean of 8 samples of 49 evaluations"
        rows.append({"reconstruction": row_name, **told, "seconds": round(time.perf_counter() - began, 1)})
    return rows


class Timed(nn.Module):
    """A network and the processor time that it took."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.settings, self.seconds = network, network.settings, 0.0

    def forward(self, *given: Any) -> Any:
        began = time.process_time()
        found = self.network(*given)
        self.seconds += time.process_time() - began
        return found


def sampler(cases: int = 12) -> list[Row]:
    """What decomposed sampling costs beside its network, and its coverage."""
    posed, rows = sciml.problem("ct", batch=1, seed=30000, dtype=torch.float32), []
    stored = sciml.pretrained("diffusion-ellipses")
    for precision in (None, torch.bfloat16):
        network = Timed(stored.network)
        problem = posed.with_prior(replace(stored, network=network, precision=precision))
        solver = DecomposedDiffusion(steps=49, samples=8, seed=0)
        timed(problem, solver)
        network.seconds, began = 0.0, time.process_time()
        timed(problem, solver)
        whole = time.process_time() - began
        name = "bfloat16" if precision else "float32"
        beside = f"{100 * (whole / network.seconds - 1):.0f} %"
        rows.append({"network in": name, "processor seconds": round(whole, 2), "beside the network": beside})
    truths = Ellipses.random(cases, seed=31000).image(Pixels((128, 128), (2.0, 2.0))).float()
    fast = posed.with_prior(replace(stored, precision=torch.bfloat16))
    record = sciml.calibrate(fast, DecomposedDiffusion(steps=49, samples=19, seed=0), cases=cases, truths=truths)
    for nominal in (0.5, 0.9):
        level, share, error = record.coverage(nominal)
        rows[-1][f"truth in {100 * level:.0f} % intervals"] = f"{100 * share:.0f} +- {100 * error:.0f} %"
    return rows


def tooth(data: Path, n: int, pictures: Path | None) -> list[Row]:
    """The measured scan: 31 views, judged on the others."""
    file = str(data / "ct_tooth" / "tooth.h5")
    whole = sciml.problem("ct", data=file, n=n, dtype=torch.float32)
    flat = TotalVariation()
    reference, seconds = timed(whole.with_prior(flat), Discrepancy(PrimalDual()))
    target = reference.value
    rows = [row("total variation, 181 views", reference, seconds)]
    formula = {w: whole.forward.backproject_filtered(whole.data, w) for w in WINDOWS}
    full = max(formula.values(), key=lambda x: float(psnr(x, target)))
    few = sciml.problem("ct", data=file, n=n, every=6, dtype=torch.float32)
    rest = torch.ones(whole.data.shape[2], dtype=torch.bool)
    rest[::6] = False
    shown = [("total variation, 181 views", reference)]

    def add(name: str, problem: Any, solver: Any) -> None:
        solution, seconds = timed(problem, solver)
        left = whole.noise.whiten(whole.forward(solution.value) - whole.data, whole.data)[:, :, rest]
        told = {
            "left-out chi^2/dof": float(left.square().mean()),
            "PSNR to TV of all (dB)": float(psnr(solution.value, target)),
            "PSNR to FBP of all (dB)": float(psnr(solution.value, full)),
        }
        rows.append(row(name, solution, seconds, **told))
        shown.append((name, solution))

    best = max(WINDOWS, key=lambda w: float(psnr(few.forward.backproject_filtered(few.data, w), target)))
    add(f"filtered back-projection, {best}", few.with_prior(None), FilteredBackprojection(best))
    add("total variation", few.with_prior(flat), Discrepancy(PrimalDual()))
    # The network was trained on images of about one unit: the largest attenuation, from a formula, is taken for one.
    scale = float(few.forward.backproject_filtered(few.data, Hann(0.5)).quantile(0.995))
    learned = sciml.pretrained("lpn-ellipses").scaled(scale)
    add("learned proximal network", few.with_prior(learned, 1 / (0.03 * scale) ** 2), ADMM(max_steps=60))
    if pictures is not None:
        show.compare([s for _, s in shown], pictures / "tooth.png", names=[n for n, _ in shown])
    return rows


def camera(pictures: Path | None, n: int = 256) -> list[Row]:
    """A photograph: Gaussian blur of two pixels, 2 % noise."""
    from skimage.data import camera as photograph
    from skimage.transform import resize

    grey = torch.as_tensor(resize(photograph(), (n, n), anti_aliasing=True).copy(), dtype=torch.float32)
    image = grey.flip(0).T.contiguous()  # x to the right, y up
    posed = sciml.problem("deblur", image=image, n=n, width=2.0, sigma=0.02, dtype=torch.float32)
    truth, rows, shown = posed.truth, [], []

    def add(name: str, prior: Any, solver: Any) -> None:
        solution, seconds = timed(posed.with_prior(prior), solver)
        told = {"PSNR (dB)": float(psnr(solution.value, truth, range=1.0)), "SSIM": float(ssim(solution.value, truth))}
        rows.append(row(name, solution, seconds, **told))
        shown.append((name, solution))

    blurred = float(psnr(posed.data, truth, range=1.0))
    rows.append({"reconstruction": "blurred and noisy", "PSNR (dB)": round(blurred, 2)})
    add("total variation", TotalVariation(), Discrepancy(PrimalDual()))
    add("wavelets", Wavelet(), Discrepancy(PrimalDual()))
    add("denoiser", sciml.pretrained("denoiser-patches"), PlugAndPlay())
    if pictures is not None:
        show.compare([s for _, s in shown], pictures / "camera.png", names=[n for n, _ in shown])
    return rows


def table(rows: list[Row]) -> str:
    """Markdown."""
    keys = list(dict.fromkeys(key for one in rows for key in one))
    lines = ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    return "\n".join([*lines, *("| " + " | ".join(str(one.get(key, "")) for key in keys) + " |" for one in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--only", nargs="+", default=["ellipses", "head", "resonance", "sampler", "tooth", "camera"])
    parser.add_argument("--data", type=Path, default=os.environ.get("SCIML_REAL_DATA"))
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--pixels", type=int, default=320)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    if given.pictures is not None:
        given.pictures.mkdir(parents=True, exist_ok=True)
    store = given.out.with_suffix(".json")
    found: dict[str, Any] = json.loads(store.read_text()) if store.is_file() else {}
    parts = {
        "ellipses": lambda: ellipses(given.count, given.pictures),
        "head": lambda: head(given.pictures),
        "resonance": resonance,
        "sampler": sampler,
        "tooth": lambda: tooth(Path(given.data), given.pixels, given.pictures),
        "camera": lambda: camera(given.pictures),
    }
    for name in given.only:
        if name == "tooth" and given.data is None:
            continue
        found[name] = {"date": time.strftime("%Y-%m-%d"), "threads": torch.get_num_threads(), "rows": parts[name]()}
        store.write_text(json.dumps(found, indent=1) + "\n")
        text = "\n\n".join(
            f"## {key} ({part['date']}, {part['threads']} threads)\n\n{table(part['rows'])}"
            for key, part in found.items()
        )
        given.out.write_text(f"# Reconstructions\n\n`python -m tests.benchmark.reconstruction`\n\n{text}\n")
        print(table(found[name]["rows"]), flush=True)


if __name__ == "__main__":
    main()
