"""A history that grows row by row, as JSON lines and as CSV, and survives being killed between two bytes."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sciml.domains.errors import InputError
from sciml.files.checkpoint import write_atomic

__all__ = ["Record"]


class Record:
    """Rows of numbers and text in `<stem>.jsonl` and `<stem>.csv`.

    Each row is one write to each file, so a kill can tear only the last line. On opening, a torn line is dropped,
    and the CSV is rebuilt from the JSON lines when the two disagree. Numbers that are not finite are stored as null.

    Args:
        stem: path without ending, as in `runs/darcy/history`.
        keep: number of rows to keep from an earlier run (all by default); a run resumed from a checkpoint passes
            the count that the checkpoint knows, and so continues to the same content.

    Raises:
        InputError: the folder is not writable, or the rows kept are fewer than `keep`.
    """

    def __init__(self, stem: str | os.PathLike[str], *, keep: int | None = None) -> None:
        self.stem = str(Path(stem).resolve())
        self.rows: list[dict[str, Any]] = []
        lines = self._whole_lines()
        for line in lines:
            self.rows.append(json.loads(line))
        if keep is not None:
            if keep > len(self.rows):
                raise InputError(
                    f"'{self.stem}.jsonl' has {len(self.rows)} whole rows and the checkpoint knows {keep}; "
                    "start the run again in a new folder."
                )
            del self.rows[keep:], lines[keep:]
        text = "".join(line + "\n" for line in lines).encode()
        self._restore(self.stem + ".jsonl", text)
        self._restore(self.stem + ".csv", self._table().encode())

    def _whole_lines(self) -> list[str]:
        path = Path(self.stem + ".jsonl")
        if not path.is_file():
            return []
        content = path.read_bytes()
        lines: list[str] = []
        for part in content.split(b"\n")[:-1]:  # what follows the last newline is torn
            try:
                row = json.loads(part)
            except ValueError:
                break
            if not isinstance(row, dict):
                break
            lines.append(part.decode())
        return lines

    @staticmethod
    def _restore(path: str, content: bytes) -> None:
        if Path(path).is_file() and Path(path).read_bytes() == content:
            return
        write_atomic(path, content)

    def _line(self, values: list[Any]) -> str:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(["" if value is None else value for value in values])
        return buffer.getvalue()

    def _table(self) -> str:
        if not self.rows:
            return ""
        names = list(self.rows[0])
        return self._line(names) + "".join(self._line([row.get(name) for name in names]) for row in self.rows)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; every row has the names of the first.

        Raises:
            InputError: other names than in the first row, or the disk is full.
        """
        clean = {str(name): _clean(value) for name, value in row.items()}
        if self.rows and list(clean) != list(self.rows[0]):
            raise InputError(
                f"a row of '{self.stem}' has {list(clean)} where the first has {list(self.rows[0])}; keep them."
            )
        table = ("" if self.rows else self._line(list(clean))) + self._line(list(clean.values()))
        for path, text in ((self.stem + ".jsonl", json.dumps(clean) + "\n"), (self.stem + ".csv", table)):
            try:
                with Path(path).open("ab", buffering=0) as file:
                    if file.write(text.encode()) != len(text.encode()):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                raise InputError(
                    f"'{path}' cannot be written ({error.strerror}); free some space and resume."
                ) from error
        self.rows.append(clean)


def _clean(value: Any) -> Any:
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
