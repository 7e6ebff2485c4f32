"""One self-contained HTML page: certificates, scores, curves, samples, settings, recipe, versions, date."""

from __future__ import annotations

import base64
import datetime
import html
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError
from sciml.files.checkpoint import write_atomic
from sciml.show.canvas import encode
from sciml.show.comparison import Reconstructions
from sciml.show.learning import history_of, samples, training_curves
from sciml.show.plot import plot
from sciml.show.summary import certificate, check_text, plain, verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sciml.core.solution import Solution

__all__ = ["report", "versions"]

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2329; background: #fff; max-width: 1080px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #d9dee3; padding-bottom: .2rem; }
.told { color: #5b6670; font-size: .9rem; margin: 0 0 1rem; }
.code { display: inline-block; padding: .05rem .55rem; border-radius: .8rem; font-size: .85rem; font-weight: 600; background: #fbe3d6; color: #7a3300; }
.code.good { background: #d5efe6; color: #00523b; }
table { border-collapse: collapse; margin: .4rem 0 1rem; font-size: .9rem; } th, td { text-align: left; padding: .22rem .9rem .22rem 0; border-bottom: 1px solid #eceff2; vertical-align: top; }
th { color: #5b6670; font-weight: 600; white-space: nowrap; } td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; display: block; margin: .6rem 0; } details { margin: .5rem 0; } summary { cursor: pointer; color: #5b6670; }
pre { background: #f5f7f9; padding: .7rem; overflow-x: auto; font-size: .82rem; }
"""

IMAGES = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


def report(
    items: Any, out: str | os.PathLike[str] | None = None, *, title: str | None = None, data: Any = None
) -> Path:
    """Write one HTML page that needs no other file and no network, whole or not at all, and return its path.

    Args:
        items: one thing or a sequence of things, in the order of the page: the folder of a training run, a Fit, a
            Solution, a Score, ``reconstructions(...)``, a figure, the path of an image or movie (``.png``, ``.gif``, ``.jpg``, ``.webp``), a mapping
            (a table of two columns), a list of mappings (a table), text (a heading if short, otherwise a paragraph).
        out: the file; ``report.html`` in the folder for a run, otherwise in the current one.
        title: heading of the page.
        data: members with known targets (Dataset or Samples), from which samples of a run or Fit are drawn.

    Raises:
        InputError: a folder without a run, a thing that no page can show, an unwritable place.
    """
    alone = not isinstance(items, Sequence) or isinstance(items, str | bytes | Reconstructions)
    things = [items] if alone else list(items)
    if things and all(isinstance(thing, Mapping) for thing in things):
        things = [things] if isinstance(items, list) else things
    if out is None:
        first = things[0] if things else None
        folder = isinstance(first, str | os.PathLike) and Path(first).is_dir()
        out = (Path(first) if folder else Path()) / "report.html"  # type: ignore[arg-type]
    target = Path(out)
    if target.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"a report is written to a file that ends in .html, not '{target}'.")
    if not target.absolute().parent.is_dir():
        raise InputError(
            f"cannot write '{target}': the folder {target.absolute().parent} does not exist; create it first."
        )
    sections = [_section(thing, data) for thing in things]
    heading = title or next((_name(thing) for thing in things if _name(thing)), "sciml report")
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    page = [
        "<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(heading)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(heading)}</h1>", f'<p class="told">{html.escape(now)}</p>', *sections,
        "<h2>Versions</h2>", _table(versions()), "</body></html>",
    ]  # fmt: skip
    write_atomic(target, "\n".join(page).encode())
    return target


def versions() -> dict[str, str]:
    """What the page was made with."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} CPUs"}
    for name in ("sciml", "torch", "numpy", "xarray", "h5py"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = str(getattr(sys.modules.get(name), "__version__", "not installed"))
    return found


def _name(thing: Any) -> str:
    if isinstance(thing, str | os.PathLike) and Path(thing).is_dir():
        return Path(thing).resolve().name
    return ""


def _section(thing: Any, data: Any) -> str:
    from matplotlib.figure import Figure

    from sciml.core.solution import Solution
    from sciml.training.fitted import Fit, Score

    if isinstance(thing, Solution):
        return _solution(thing)
    if isinstance(thing, Reconstructions):
        return _reconstructions(thing)
    if isinstance(thing, Figure):
        return _figure(thing)
    if isinstance(thing, Fit):
        return _fit(thing, thing, data)
    if isinstance(thing, Score):
        return _score(thing)
    if isinstance(thing, Mapping):
        return _table(thing)
    if isinstance(thing, list | tuple) and thing and all(isinstance(row, Mapping) for row in thing):
        return _rows(thing)
    if isinstance(thing, str | os.PathLike):
        path = Path(thing)
        if len(str(thing)) < 1024 and path.is_dir():
            return _run(path, data)
        if len(str(thing)) < 1024 and path.suffix.lower() in IMAGES:
            if not path.is_file():
                raise InputError(f"there is no image '{path}' for the report; check the path.")
            return _picture(path.read_bytes(), IMAGES[path.suffix.lower()], path.stem)
        if isinstance(thing, str):
            short = len(thing) <= 80 and "\n" not in thing and not thing.endswith(".")
            return f"<h2>{html.escape(thing)}</h2>" if short else f"<p>{html.escape(thing)}</p>"
        raise InputError(f"there is no folder '{path}' to report on; give the folder passed to `fit` as out=.")
    raise InputError(
        f"a report cannot show {type(thing).__name__}; pass folders, fits, solutions, scores, reconstructions, figures, images, tables or text."
    )


def _reconstructions(shown: Reconstructions) -> str:
    """The comparison, the table, and a page of each folded away."""
    folded = [
        _fold(name, _figure(plot(solution), name) + _pre(certificate(solution)))
        for name, solution in zip(shown.names, shown.solutions, strict=True)
    ]
    words = ", ".join(shown.names)
    parts = [f"<h2>{html.escape(shown.heading)}</h2>", _figure(shown.figure(), words), _rows(shown.rows()), *folded]
    return "\n".join(parts)


def _solution(solution: Solution) -> str:
    good = " good" if solution.ok else ""
    rows = [
        {"check": check.name, "worst": f"{float(check.value.detach().max()):.2e}" if check.value.numel() else "", "target": "told" if check.target is None else f"{check.target:.0e}",
         "passed": "" if check.target is None else f"{int(check.passed.sum())} of {len(check.passed)}"}
        for check in solution.checks
    ]  # fmt: skip
    told = {
        "members": ", ".join(f"{count} {name}" for name, count in verdict(solution).items()),
        "shape": tuple(solution.value.shape),
        "solver": repr(solution.solver),
        **({} if solution.weight is None else {"weight of the prior": solution.weight.tolist()}),
        **solution.stats,
    }
    parts = [
        f"<h2>{html.escape(solution.problem.name)}</h2>",
        f'<p><span class="code{good}">{solution.code.name}</span> {html.escape(solution.code.sentence)}</p>',
        f'<p class="told">{html.escape(certificate(solution))}</p>',
        _rows(rows), _figure(plot(solution), check_text(solution.checks[0]) if solution.checks else solution.problem.name),
        _fold("Cost and solver", _table(told)),
    ]  # fmt: skip
    if solution.recipe is not None:
        parts.append(_fold("Recipe", _pre(json.loads(solution.recipe.to_json()))))
    return "\n".join(parts)


def _run(folder: Path, data: Any) -> str:
    """A folder that `fit` wrote to; a run under way has curves only."""
    from sciml.training.fitted import Fit

    if not (folder / "checkpoint.safetensors").is_file():
        if not (folder / "log.jsonl").is_file():
            raise InputError(f"'{folder}' holds no training run; give the folder passed to `fit` as out=.")
        return "<h2>Training, under way</h2>" + _figure(training_curves(folder), "training curves")
    facts = folder / "run.json"
    told = json.loads(facts.read_text()) if facts.is_file() else {}
    try:
        fit = Fit.load(folder)
    except InputError as error:  # a module of the user's own: its weights alone do not rebuild it
        parts = [
            "<h2>Training</h2>",
            f"<p>{html.escape(str(error))}</p>",
            _figure(training_curves(folder), "training curves"),
        ]
        return "\n".join(parts + ([_table(told)] if told else []))
    return _fit(fit, folder, data, told)


def _fit(fit: Any, run: Any, data: Any, told: Mapping[str, Any] | None = None) -> str:
    parts = ["<h2>Training</h2>", f"<p>{html.escape(str(fit))}</p>"]
    parameters = sum(p.numel() * (2 if p.is_complex() else 1) for p in fit.network.parameters())
    rows = history_of(run)
    seconds = sum(float(row.get("seconds") or 0.0) for row in rows)
    facts = {
        "network": type(fit.network).__name__, "real parameters": f"{parameters:,}", "epochs": len(rows),
        "seconds": f"{seconds:.1f}", "kept epoch": fit.best_epoch, "validation, relative L2": f"{fit.best_error:.4g}",
    }  # fmt: skip
    rest = {key: value for key, value in (told or {}).items() if not isinstance(value, Mapping)}
    parts.append(_table({**facts, **rest}))
    if rows:
        parts.append(_figure(training_curves(run), "training curves"))
    if data is not None:
        parts += ["<h2>Scores on the members given</h2>", _score(fit.score(data))]
        parts += [
            "<h2>Samples</h2>",
            _figure(samples(fit, data), "inputs, targets, predictions and errors of some members"),
        ]
    parts.append(
        _fold(
            "Settings", _pre({**fit.config, **{key: value for key, value in (told or {}).items() if key not in rest}})
        )
    )
    parts.append(_fold("Signature", _pre(fit.signature.state())))
    if fit.recipe is not None:
        parts.append(_fold("Recipe of the data", _pre(fit.recipe)))
    return "\n".join(parts)


def _score(score: Any) -> str:
    def row(name: str, each: Any) -> dict[str, str]:
        values = each.double()
        return {
            "metric": name,
            "mean": f"{float(values.mean()):.4g}",
            "median": f"{float(values.median()):.4g}",
            "worst": f"{float(values.max()):.4g}",
            "members": str(len(values)),
        }

    return _rows([row("relative L2", score.each_l2), row("relative H1", score.each_h1)])


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping | list):
        return json.dumps(plain(value))
    return str(value)


def _table(told: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(str(key))}</th><td>{html.escape(_text(value))}</td></tr>" for key, value in told.items()
    )
    return f"<table>{rows}</table>"


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_text(row.get(name, '')))}</td>" for name in names) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _pre(value: Any) -> str:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return f"<pre>{html.escape(value)}</pre>"
    return f"<pre>{html.escape(json.dumps(plain(value), indent=2))}</pre>"


def _fold(heading: str, inside: str) -> str:
    return f"<details><summary>{html.escape(heading)}</summary>{inside}</details>"


def _figure(figure: Figure, words: str = "figure") -> str:
    return _picture(encode(figure, "png", 120), "image/png", words)


def _picture(content: bytes, kind: str, words: str) -> str:
    return f'<img alt="{html.escape(words, quote=True)}" src="data:{kind};base64,{base64.b64encode(content).decode()}">'
