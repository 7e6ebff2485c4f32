"""Training step and inference of `FNO` beside neuraloperator's, in one process, turn by turn.

    python -m tests.benchmark.fno --out tests/benchmark/fno.md       # needs neuraloperator beside this package

Two-dimensional, four layers, 32 channels, batch 16, float32: 64 x 64 points with 16 modes in neuraloperator's counting (16 x 9 matrices a layer; ours,
``modes=9``, has 17 x 9), and 85 x 85 points. Theirs without channel MLP, with linear skips and the widths of our lifting and projection: the
textbook's network on both sides. A step is gradients of a mean square and AdamW (fused where the weights are real). Medians over rounds; the ratio is that of each round's pair, its spread the quartiles.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciml.networks import FNO
from tests.benchmark._side_by_side import busy, version

CASES = ((64, 9, (16, 16)), (85, 9, (16, 16)))
BATCH, WIDTH = 16, 32


def size(network: nn.Module) -> int:
    """Real weights."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in network.parameters())


def contenders(modes: int, theirs: tuple[int, int]) -> dict[str, nn.Module]:
    """The networks by name."""
    from neuralop.models import FNO as Peer

    return {
        "neuraloperator": Peer(
            n_modes=theirs, in_channels=1, out_channels=1, hidden_channels=WIDTH, n_layers=4, use_channel_mlp=False,
            fno_skip="linear", lifting_channel_ratio=2, projection_channel_ratio=4,
        ),
        "ours": FNO(2, modes=modes, width=WIDTH),
    }  # fmt: skip


def training(network: nn.Module, x: Tensor, y: Tensor) -> Callable[[], Any]:
    """One step."""
    weights = list(network.parameters())
    rule = torch.optim.AdamW(weights, lr=1e-4, fused=not any(p.is_complex() for p in weights))

    def step() -> None:
        rule.zero_grad(set_to_none=True)
        (network(x) - y).square().mean().backward()
        rule.step()

    return step


def inference(network: nn.Module, x: Tensor) -> Callable[[], Any]:
    """One evaluation of the batch."""

    def call() -> None:
        with torch.inference_mode():
            network(x)

    return call


def seconds(call: Callable[[], Any]) -> float:
    """By the clock of the processor times, so that other work counts little."""
    began = time.process_time()
    call()
    return time.process_time() - began


def measure(n: int, modes: int, theirs: tuple[int, int], rounds: int) -> list[dict[str, Any]]:
    """Rows of one case."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, BATCH, 1, n, n, generator=generator)
    networks, rows = contenders(modes, theirs), []
    for what in ("step", "inference"):
        calls = {
            name: training(one.train(), x, y) if what == "step" else inference(one.eval(), x)
            for name, one in networks.items()
        }
        for call in calls.values():
            for _ in range(3):
                call()
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                found[name].append(seconds(call))
        for name, times in found.items():
            ratios = sorted(a / b for a, b in zip(found["neuraloperator"], times, strict=True))
            rows.append(
                {
                    "points": n, "what": what, "network": name, "weights": size(networks[name]),
                    "milliseconds": 1e3 * statistics.median(times), "ratio": statistics.median(ratios),
                    "quartiles": [ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]],
                }
            )  # fmt: skip
    return rows


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    rows = [row for case in CASES for row in measure(*case, given.rounds)]
    lines = [
        "# FNO beside neuraloperator", "", " ".join(str(__doc__).split("\n\n")[2].split()), "",
        "| points | what | network | real weights | ms of the processor | times faster than neuraloperator (quartiles) |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        low, high = row["quartiles"]
        lines.append(
            f"| {row['points']}^2 | {row['what']} | {row['network']} | {row['weights']:,} | {row['milliseconds']:.1f} | {row['ratio']:.2f} ({low:.2f} to {high:.2f}) |"
        )
    lines += [
        "",
        f"{datetime.date.today().isoformat()}, {platform.machine()}, {given.threads} of 2 cores, the share that others used at the end {busy():.0%}, torch {torch.__version__}, neuraloperator {version('neuraloperator')}: `python -m tests.benchmark.fno --threads {given.threads}`",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if given.out is not None:
        given.out.write_text(text)
        given.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
