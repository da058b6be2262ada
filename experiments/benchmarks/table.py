"""A table of figures, as numbers for a program and as text for a person."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Table:
    """columns: title to format specification (".2f", ",.0f", "" for text). rows: one value a column; None is a dash."""

    title: str
    columns: dict[str, str]
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *values: Any) -> None:
        assert len(values) == len(self.columns)
        self.rows.append(values)

    def __str__(self) -> str:
        specs = list(self.columns.values())
        cells = [list(self.columns)]
        cells += [["-" if v is None else format(v, s) for v, s in zip(row, specs, strict=True)] for row in self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(specs))]

        def line(row: list[str]) -> str:
            aligned = [text.rjust(w) if s else text.ljust(w) for text, w, s in zip(row, widths, specs, strict=True)]
            return "  ".join(aligned).rstrip()

        lines = [self.title, line(cells[0]), "  ".join("-" * w for w in widths), *map(line, cells[1:])]
        return "\n".join([*lines, *self.notes])
