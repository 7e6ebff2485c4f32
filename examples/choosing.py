"""Which solver for which problem, what it costs and when it fails: runs `sciml.bench` over the catalogue and writes the page.

    python examples/choosing.py                     # writes CHOOSING.md; minutes on an idle machine; goes on where it was stopped
    python examples/choosing.py --only ct mri --page /dev/stdout

Every figure on the page is measured by this command; the sentences on when a solver fails are those of its docstring. Rows are
kept in `build/choosing`; delete that folder to measure again.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import sciml
from sciml.catalogue import folder
from sciml.core.bench import Bench, Row
from sciml.learned import PINN, GaussianProcess, ReducedModel, Ritz
from sciml.learned.gaussian_process import Matern
from sciml.learned.pinn import ResidualAdaptive
from sciml.solvers import (
    ADMM,
    GMRES,
    Collocation,
    ConjugateGradient,
    Direct,
    DirectTransform,
    ExponentialRungeKutta,
    FilteredBackprojection,
    LeastSquares,
    Multigrid,
    Newton,
    PlugAndPlay,
    PrimalDual,
    SobolevDescent,
)
from sciml.solving.advise import solvers
from sciml.solving.bench_contenders import label

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem of the catalogue with its settings, who is asked (None: all that accept), and what is to be known of it."""

    name: str
    settings: dict[str, Any]
    advice: str
    solvers: Callable[[Any], Sequence[Any]] | None = None
    weights: tuple[str, ...] | None = None
    by_error: bool = False

    def problem(self) -> Any:
        """Built from the catalogue."""
        return sciml.problem(self.name, **self.settings)


def network() -> PINN:
    """A physics-informed network that is trained for seconds, not minutes."""
    return PINN(sampling=ResidualAdaptive(400), max_steps=40)


def steady(problem: Any) -> list[Any]:
    """Solvers of linear equations."""
    best = problem.recommend(problem)
    others = [DirectTransform(), Multigrid(), ConjugateGradient(), GMRES(), Direct()]
    return [best, *(one for one in others if label(one) != label(best)), network()]


def smooth(problem: Any) -> list[Any]:
    """The same, and a Gaussian process for smooth solutions."""
    return [*steady(problem), GaussianProcess(Matern(length=1.0, smoothness=5), samples=0)]


def curved(problem: Any) -> list[Any]:
    """Solvers of minima: Newton's method, descent in the energy's own norm, a network that is trained on the energy."""
    return [problem.recommend(problem), SobolevDescent(), Ritz(max_steps=60)]


def warming(problem: Any) -> list[Any]:
    """Integrators, and a reduced model of eight other starts."""
    snapshots = sciml.solve(
        sciml.problem("heat", n=problem.space.shape[1], batch=8, seed=1, times=[0.1 * i for i in range(11)])
    )
    return [ExponentialRungeKutta(), Collocation(), ReducedModel(snapshots), network()]


CASES = (
    Case("poisson", {"n": 63}, "A constant coefficient and no Robin side: a direct transform. Anything else: multigrid.", smooth),
    Case(
        "darcy", {"n": 31, "batch": 4},
        "A coefficient that varies rules transforms out. A network answers in one evaluation and to its training error; as a start it saves the classical solver less than it costs.",
        lambda problem: steady(problem)[:-1], ("fno-darcy",),
    ),
    Case(
        "heat", {"n": 63},
        "Modes are integrated exactly, so that time steps cost nothing; the error is that of the grid. A reduced model pays where one step on the grid is dear, which here it is not.",
        warming,
    ),
    Case(
        "burgers", {"n": 128, "viscosity": 0.01, "times": (0.0, 0.5, 1.0)},
        "Exponential time differencing. The network steps by 0.1, and the errors of its steps add up.",
        lambda _: [ExponentialRungeKutta(), Collocation(), network()], ("fno-burgers",),
    ),
    Case(
        "bratu", {"n": 31}, "Newton's method, with multigrid for the Laplacian that is in the law.",
        lambda problem: [problem.recommend(problem), Newton(), network()],
    ),
    Case(
        "p_laplace", {"n": 31}, "Newton's method. A network trained on the energy knows nothing of the grid, whose error it therefore does not share.",
        curved,
    ),
    Case("minimal_surface", {"n": 31}, "The same.", curved),
    Case(
        "ct", {"n": 64, "batch": 1},
        "Total variation with a weight by the discrepancy makes no assumption on where the image comes from; unfolded weights are fast and belong to one setting (128 pixels, 30 views), which is not met here, and the misfit shows it; back-projection is a first look.",
        lambda _: [PrimalDual(), FilteredBackprojection()], ("unfolded-ellipses",), True,
    ),
    Case(
        "deblur", {"n": 32, "batch": 1},
        "Total variation for images with edges; a denoiser that was trained on photographs for those.",
        lambda _: [PrimalDual(), ADMM(), (PlugAndPlay(), "denoiser-patches")], (), True,
    ),
    Case(
        "mri", {"n": 32, "batch": 1},
        "Total variation; conjugate gradients without a prior when seconds count.",
        lambda _: [PrimalDual(), ADMM(), (LeastSquares(), None)], (), True,
    ),
)  # fmt: skip


def fails(text: str | None) -> str:
    """The sentence that begins with *Fails when*, from a docstring or a card."""
    found = re.search(r"\*Fails when\*\s+(.*?)(?=\.\s+[A-Z`]|\.\s*\n\s*\n|\.\s*$|\Z)", text or "", flags=re.S)
    return " ".join(found[1].split()).rstrip(".") if found else ""


def weaknesses(names: Iterable[str]) -> dict[str, str]:
    """By the name of a solver's class, for those that occur in names of rows, and of weights."""
    words = {word for name in names for word in re.split(r"[^\w-]+", name)}
    told = {}
    for kind in solvers():
        if kind.__name__ in words:
            text = fails(kind.__doc__) or fails(sys.modules[kind.__module__].__doc__)
            if text:
                told[kind.__name__] = text
    for word in sorted(words):
        card = folder("data") / "pretrained" / word / "card.md"
        if card.is_file() and fails(card.read_text()):
            told[word] = fails(card.read_text())
    return told


def chosen(bench: Bench, by_error: bool) -> Row | None:
    """The cheapest certified row by seconds of the processor; ``by_error``: of those within 5 % of the least error."""
    rows = [row for row in bench.rows if row.passed and row.busy is not None]
    if not rows:
        return None
    if by_error:
        least = min((row.mean_error for row in rows if row.mean_error is not None), default=0.0)
        rows = [row for row in rows if row.mean_error is not None and row.mean_error <= 1.05 * least] or rows
    return min(rows, key=lambda row: row.busy or 0.0)


def section(case: Case, bench: Bench) -> list[str]:
    """One problem of the page."""
    facts = bench.facts
    path = folder("problems") / f"{case.name}.py"
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    settings = " ".join(f"{key}={_word(value)}" for key, value in case.settings.items() if key != "batch")
    words = f"--set {settings}" + (f" --batch {case.settings['batch']}" if "batch" in case.settings else "")
    lines = [f"## {case.name}", "", doc.partition("\n\n")[0].replace("\n", " "), "", case.advice, ""]
    lines += [f"`{words}`; {facts['members']} member{'s' * (facts['members'] != 1)}, {facts['dtype']}, shape {tuple(facts['shape'])}"
              + ".", ""]  # fmt: skip
    lines += [bench.markdown(), ""]
    lines += [f"- {note}" for note in bench.notes() if not note.startswith(("cold:", "the machine"))]
    if fails(doc):
        lines.append(f"- The problem is badly posed or badly resolved when {fails(doc)}.")
    if bench.refused:
        lines += ["", "Refused: " + "; ".join(f"{one.name} ({one.reason})" for one in bench.refused) + "."]
    return [*lines, ""]


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def page(found: Sequence[tuple[Case, Bench]], command: str) -> str:
    """The whole page in Markdown."""
    facts = found[0][1].facts
    dates = sorted({bench.facts["date"] for _, bench in found})
    busy = [note for _, bench in found for note in bench.notes() if note.startswith("the machine")]
    lines = [
        "# Which solver", "",
        "Every row below is measured: `" + command + f"`, {' and '.join(dates)}, on {facts['processor']} "
        f"({facts['cores']} cores, {facts['threads']} thread, torch {facts['torch']}).", "",
        "*Error* is the mean relative L2 distance to the reference that stands below each table; against an exact solution all answers on one grid share the grid's error. *Cold* is the first run of a solver in its process, in the order of the table; "
        f"*warm* the median of up to {facts['repeats']} more (smallest to largest); *processor* what those cost without waiting. A `*` marks a cold run of which parts had run before. "
        "Neither includes the certificate. *Training* is what the shipped weights took, on one thread.", "",
    ]  # fmt: skip
    if busy:
        lines += [
            "The machine was busy with other work while this was measured: compare seconds of the processor, not of the wall.",
            "",
        ]
    lines += ["| problem | take | outcome | error | processor (s) | unless |", "|---|---|---|---|---|---|"]
    told = weaknesses(row.name for _, bench in found for row in bench.rows)
    for case, bench in found:
        row = chosen(bench, case.by_error)
        if row is None:
            lines.append(f"| {case.name} | none was certified | | | | |")
            continue
        cells = dict(zip(*[bench.table()[0], bench.table()[1][bench.rows.index(row)]], strict=True))
        unless = next((told[word] for word in re.split(r"[^\w-]+", row.name) if word in told), "")
        lines.append(
            f"| {case.name} | {row.name} | {row.outcome} | {cells.get('error', '')} | {cells['processor (s)']} | {unless} |"
        )
    lines += [
        "",
        "The rule: of the certified answers the cheapest; for images, where the certificate leaves the prior open, the cheapest of those within 5 % of the least error.",
        "",
    ]
    for case, bench in found:
        lines += section(case, bench)
    lines += ["## When they fail", ""]
    lines += [f"- **{name}** when {text}." for name, text in sorted(told.items())]
    return "\n".join(lines) + "\n"


def main(
    cases: Sequence[Case] = CASES, *, out: Path = ROOT / "build" / "choosing", to: Path | None = ROOT / "CHOOSING.md",
    repeats: int = 2, seconds: float = 300.0, say: Callable[[str], None] = lambda _: None, command: str = "python examples/choosing.py",
) -> dict[str, float]:  # fmt: skip
    """Bench every case, write the page, and return the error of the solver taken for each problem."""
    found = []
    for case in cases:
        posed = case.problem()
        given = None if case.solvers is None else case.solvers(posed)
        bench = sciml.bench(
            posed, given, weights=case.weights, repeats=repeats, seconds=seconds, threads=1, out=out / case.name,
            progress=lambda done, total, words, name=case.name: say(f"{name}: {done} of {total} {words}"),
        )  # fmt: skip
        found.append((case, bench))
    text = page(found, command)
    if to is not None:
        to.write_text(text)
    errors = {}
    for case, bench in found:
        row = chosen(bench, case.by_error)
        if row is not None and row.mean_error is not None:
            errors[case.name] = row.mean_error
    return errors


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--only", nargs="*", default=[case.name for case in CASES])
    words.add_argument("--page", type=Path, default=ROOT / "CHOOSING.md")
    words.add_argument("--seconds", type=float, default=300.0, help="time limit of each solver")
    words.add_argument("--repeats", type=int, default=2)
    given = words.parse_args()
    errors = main(
        [case for case in CASES if case.name in given.only], to=given.page, seconds=given.seconds, repeats=given.repeats,
        say=print, command=" ".join(["python examples/choosing.py", *sys.argv[1:]]),
    )  # fmt: skip
    for name, error in errors.items():
        print(f"{name}: {error:.3g}")
