"""Whether a sampler draws from the posterior: ranks, coverage and score on simulated members of the problem."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.core.calibration import Calibration, bits, digest, inside, rank, setting
from sciml.core.inverse import Inverse
from sciml.core.prior import Generative
from sciml.core.solution import Code
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.solving.solve import solve

__all__ = ["calibrate"]

PLACES = 256


def calibrate(
    problem: Inverse[Any],
    sampler: Solver[Any],
    *,
    cases: int = 64,
    truths: Tensor | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Calibration:
    r"""Simulate ``cases`` members of the problem, draw from the posterior of each, and see where the truths fall among the samples.

    A case is an image drawn from the problem's prior (or, one after the other, from ``truths`` ``(cases, channel, *space)``, images that were
    never used for training), its data by the problem's forward model and noise, and the sampler's samples for these data. The
    data of the problem itself play no part; of a batch the first member's model and noise are taken. Each case has a seed of its own.

    With ``out``, a file, a case that is done is written to it, and a run that was killed goes on from there; the record of a
    finished run is read from it. ``progress`` is called with (case, cases, share of the truth in 90 % intervals).

    Cost: ``cases`` runs of the sampler. 19 samples and 64 cases tell coverage to about 0.04; ``Calibrated(sampler, record)`` earns
    a certificate for any number of samples.

    Raises InputError for a sampler that cannot be asked or that returns no samples, a prior that cannot draw images where no
    ``truths`` are given, ``truths`` of another shape or with values that are not finite, and an ``out`` that holds another run.
    """
    if not isinstance(problem, Inverse):
        raise InputError(f"calibrate takes an Inverse problem, not {type(problem).__name__}")
    if not isinstance(sampler, Solver):
        raise InputError(f"calibrate takes a sampler such as DecomposedDiffusion(), not {sampler!r}")
    one = problem.member(0).blind()
    reason = sampler.accepts(one)
    if reason is not None:
        raise InputError(f"{type(sampler).__name__} cannot be asked to sample {problem.name!r}: {reason}")
    if not hasattr(sampler, "seed"):
        raise InputError(
            f"calibrate takes a sampler such as DecomposedDiffusion(); {type(sampler).__name__} draws nothing"
        )
    if cases < 2 or (truths is not None and len(truths) < cases):
        raise InputError(
            f"calibrate: {cases} cases"
            + (f" and {len(truths)} truths; give one for each" if truths is not None else "; take at least 2")
        )
    if truths is None and not isinstance(one.prior, Generative):
        raise InputError(
            f"calibrate: the prior {type(one.prior).__name__} draws no images; give truths=, images that it stands for"
        )
    shape = torch.Size(one.space.shape)
    if truths is not None and (truths.shape[1:] != shape or not bool(torch.isfinite(truths).all())):
        raise InputError(
            f"calibrate: the truths have shape {tuple(truths.shape)}; give finite images (cases, {', '.join(map(str, shape))})"
        )
    head = {
        "sampler": setting(sampler), "problem": digest(one), "seed": seed, "samples": getattr(sampler, "samples", None)
    }  # fmt: skip
    path = None if out is None else Path(out)
    rows = _resume(path, head)
    for case, row in enumerate(rows[:cases] if truths is not None else ()):
        mark = _mark(truths[case])  # type: ignore[index]
        if row.get("truth", mark) != mark:
            raise InputError(f"'{path}' holds a calibration with another truth in case {case + 1}; give another file")
    places = _places(one, seed)
    for case in range(len(rows), cases):
        row = _case(one, sampler, None if truths is None else truths[case : case + 1], places, seed, case)
        row |= {} if truths is None else {"truth": _mark(truths[case])}
        rows.append(row)
        if path is not None:
            _write(path, head, rows)
        if progress is not None:
            progress(case + 1, cases, float(row["covered"]))
    rows = rows[:cases]
    return Calibration(
        ranks=torch.tensor([row["ranks"] for row in rows]),
        crps=torch.tensor([row["crps"] for row in rows], dtype=torch.float64),
        samples=int(rows[0]["samples"]),
        sampler=head["sampler"],  # type: ignore[arg-type]
        problem=head["problem"],  # type: ignore[arg-type]
    )


def _mark(truth: Tensor) -> str:
    """Sixteen digits that stand for an image."""
    return hashlib.sha256(bits(truth)).hexdigest()[:16]


def _places(problem: Inverse[Any], seed: int) -> Tensor:
    """Random components of the image, each once."""
    count = problem.space.size * (2 if problem.space.zeros().is_complex() else 1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + 17))
    return order[:PLACES]


def _case(
    problem: Inverse[Any], sampler: Any, truth: Tensor | None, places: Tensor, seed: int, case: int
) -> dict[str, Any]:
    """One simulated member: ranks of the truth, and the score."""
    number = (seed * 1_000_003 + case) % 2**31
    generator = torch.Generator().manual_seed(number)
    if truth is None:
        truth = problem.prior.sample(1, generator=generator)
    truth = truth.to(problem.space.device, problem.space.zeros().dtype)
    with torch.no_grad():
        data = problem.noise.sample(problem.forward(truth), generator=generator)
    posed = dataclasses.replace(problem, data=data, recipe=None)
    with torch.no_grad():
        answer = dataclasses.replace(sampler, seed=number).run(posed, None, Context(solve=solve))
    samples = answer.samples
    if samples is None or len(samples) < 3:
        raise InputError(
            f"calibrate: {type(sampler).__name__} returned {0 if samples is None else len(samples)} samples; ranks need at least 3, and 19 make good intervals"
        )
    if bool((answer.claim >= Code.BREAKDOWN).any()):
        raise InputError(f"calibrate: {type(sampler).__name__} failed in case {case + 1}; {answer.sentence}")
    ranks = rank(truth, samples).flatten()[places]
    chi = torch.stack([posed.misfit(one) for one in samples])
    last = (chi < posed.misfit(truth)).sum(0)
    x, t = (torch.view_as_real(v) if v.is_complex() else v for v in (samples, truth))
    return {
        "ranks": [*ranks.tolist(), int(last)],
        "crps": _score(x.flatten(1)[:, places], t.flatten()[places]),
        "samples": len(samples),
        "covered": float(inside(ranks, len(samples), 0.9)[1].double().mean()),
    }


def _score(x: Tensor, truth: Tensor) -> float:
    """``E|x - t| - E|x - x'| / 2`` per component, with the unbiased mean over pairs, averaged."""
    count = len(x)
    order = x.sort(0).values
    weight = (2 * torch.arange(1, count + 1, dtype=torch.float64) - count - 1).reshape(-1, 1).to(x)
    pairs = (weight * order).sum(0) * 2 / (count * (count - 1))
    return float(((x - truth).abs().mean(0) - pairs / 2).mean())


def _resume(path: Path | None, head: dict[str, Any]) -> list[dict[str, Any]]:
    if path is None or not path.exists():
        return []
    try:
        known = json.loads(path.read_text())
        before, rows = known["head"], known["rows"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        raise InputError(f"'{path}' is no calibration record; give another file") from None
    for name, value in head.items():
        if before.get(name) != value:
            raise InputError(
                f"'{path}' holds a calibration with {name} {before.get(name)}, and now it is {value}; give another file"
            )
    return list(rows)


def _write(path: Path, head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps({"head": head, "rows": rows}))
    part.replace(path)
