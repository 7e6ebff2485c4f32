"""A history survives a kill between any two bytes and continues to the same content."""

from __future__ import annotations

from pathlib import Path

import pytest

from sciml.domains.errors import InputError
from sciml.files import Record

ROWS = [{"epoch": n, "loss": 1.0 / (n + 1), "note": f"a,b{n}"} for n in range(4)]


def written(folder: Path, rows: list[dict[str, object]]) -> tuple[bytes, bytes]:
    record = Record(folder / "history")
    for row in rows:
        record.append(row)
    return (folder / "history.jsonl").read_bytes(), (folder / "history.csv").read_bytes()


def test_rows_in_both_files(tmp_path: Path) -> None:
    lines, table = written(tmp_path, [*ROWS, {"epoch": 4, "loss": float("nan"), "note": True}])
    assert lines.count(b"\n") == 5 and lines.endswith(b'{"epoch": 4, "loss": null, "note": true}\n')
    assert table.splitlines()[0] == b"epoch,loss,note" and table.splitlines()[1] == b'0,1.0,"a,b0"'
    assert Record(tmp_path / "history").rows[:4] == ROWS
    with pytest.raises(InputError, match="where the first has"):
        Record(tmp_path / "history").append({"epoch": 5})


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_every_cut_resumes_to_the_same_content(tmp_path: Path, ending: str) -> None:
    whole = written(tmp_path / "whole", ROWS)
    content = whole[ending == "csv"]
    other = "csv" if ending == "jsonl" else "jsonl"
    for cut in range(len(content) + 1):
        folder = tmp_path / f"{cut}"
        folder.mkdir()
        (folder / f"history.{ending}").write_bytes(content[:cut])
        (folder / f"history.{other}").write_bytes(whole[ending == "jsonl"])
        known = len(Record(folder / "history").rows)
        assert written(folder, ROWS[known:]) == whole


def test_resume_from_an_earlier_checkpoint(tmp_path: Path) -> None:
    whole = written(tmp_path, ROWS)
    record = Record(tmp_path / "history", keep=2)
    assert record.rows == ROWS[:2]
    for row in ROWS[2:]:
        record.append(row)
    assert whole == ((tmp_path / "history.jsonl").read_bytes(), (tmp_path / "history.csv").read_bytes())
    with pytest.raises(InputError, match="4 whole rows"):
        Record(tmp_path / "history", keep=5)
    assert len(Record(tmp_path / "history").rows) == 4


def test_the_test_of_cuts_would_notice_a_plain_append(tmp_path: Path) -> None:
    """The broken twin: rows appended to a torn file that nobody repaired."""
    whole, _ = written(tmp_path, ROWS)
    lines = whole.splitlines(keepends=True)
    torn = b"".join(lines[:3]) + lines[3][:-7]
    known = torn.count(b"\n")
    assert torn + b"".join(lines[known:]) != whole
