"""The report as one self-contained HTML page: answer, figures, tables, provenance; no reference leaves the file."""

from collections.abc import Sequence
from html import escape

from experiments.report.axes import Figure
from experiments.report.study import Study
from experiments.report.style import FONT_STACK, css_variables, inline
from experiments.report.tables import Table
from experiments.report.text import count, listing

LIGHT, DARK = css_variables()

STYLE = (
    f"""
:root {{ color-scheme: light dark; {LIGHT}; --tint: #f6f7f9 }}
@media (prefers-color-scheme: dark) {{ :root {{ {DARK}; --tint: #1b1f25 }} }}
@media print {{ :root {{ {LIGHT}; --tint: #f6f7f9; color-scheme: light }} }}
"""
    + """
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 FONTS }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem }
header, .words { max-width: 46rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.015em; text-wrap: balance }
h2 { font-size: 1.2rem; margin: 3rem 0 .3rem; letter-spacing: -.005em }
p { margin: .5rem 0; overflow-wrap: anywhere }
.question { font-size: 1.08rem; color: var(--muted); margin: 0 }
.facts { font-size: .85rem; color: var(--muted); margin-top: .9rem }
.answer { margin: 1.6rem 0 0; padding: .2rem 0 .2rem 1.1rem; border-left: 3px solid var(--hue0); max-width: 50rem }
.answer p:first-child { font-weight: 600 }
.notes { margin: .5rem 0; padding: 0; list-style: none; font-size: .87rem; color: var(--muted) }
.notes { overflow-wrap: anywhere }
.table td:first-child { position: sticky; left: 0; background: var(--paper); z-index: 1 }
.notes li { padding-left: 1.1em; text-indent: -1.1em }
.notes li::before { content: "–"; display: inline-block; width: 1.1em; text-indent: 0 }
.problems { border: 1px solid var(--hue1); border-radius: 4px; padding: .5rem .9rem; margin-top: 1.6rem }
figure { margin: 0 }
figcaption { font-size: .87rem; color: var(--muted); max-width: 50rem }
figcaption b { color: var(--ink) }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; margin: .9rem 0 .5rem }
.drawing svg { display: block; width: 100%; min-width: 44rem; height: auto; font-family: FONTS }
.drawing svg * { stroke-linejoin: round; stroke-linecap: butt }
.none { padding: 1.2rem; background: var(--tint); color: var(--muted); border-radius: 4px; font-size: .9rem }
.table { max-height: 34rem; overflow: auto; border: 1px solid var(--grid); border-radius: 4px }
table { border-collapse: separate; border-spacing: 0; font-size: .82rem; width: 100% }
table { font-variant-numeric: tabular-nums }
th, td { padding: .34rem .55rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--grid) }
tbody tr:last-child > * { border-bottom: 0 }
thead th { position: sticky; top: 0; background: var(--tint); font-weight: 600; z-index: 2 }
thead th { white-space: normal; vertical-align: bottom; line-height: 1.25 }
.number { text-align: right }
.wrap td { white-space: normal; min-width: 7rem; max-width: 30rem; overflow-wrap: break-word; vertical-align: top }
th span { cursor: pointer }
th span:focus-visible { outline: 2px solid var(--hue0); outline-offset: 2px }
th span::after { content: "\\00a0↕"; color: var(--axis) }
th[aria-sort=ascending] span::after { content: "\\00a0↑"; color: var(--ink) }
th[aria-sort=descending] span::after { content: "\\00a0↓"; color: var(--ink) }
tbody tr:hover, .table tbody tr:hover td:first-child { background: var(--tint) }
tr.bad td { color: var(--muted) }
tr.bad td:last-child { white-space: normal; min-width: 12rem; color: var(--hue1) }
details { margin-top: 3rem }
summary { cursor: pointer; font-size: 1.2rem; font-weight: 700 }
code { font: .92em ui-monospace, Menlo, Consolas, monospace }
@media (max-width: 40rem) {
  main { padding: 1.4rem 1rem 3rem }
  h1 { font-size: 1.5rem }
  .drawing { margin-left: -1rem; margin-right: -1rem; padding: 0 1rem }
  .table td:first-child { white-space: normal; min-width: 6rem; max-width: 8rem; overflow-wrap: break-word }
}
@media print {
  @page { margin: 14mm }
  body { font-size: 10pt }
  main { padding: 0; max-width: none }
  .scroll, .table { overflow: visible; max-height: none; border: 0 }
  .drawing svg { min-width: 0 }
  figure, tr { break-inside: avoid }
  h2 { break-after: avoid }
  table { font-size: 6.6pt }
  th, td { padding: .15rem .3rem }
  thead th, .table td:first-child { position: static }
  th span::after, .hint { display: none !important; content: none !important }
  details::details-content { content-visibility: visible; display: block }
}
"""
)

SCRIPT = """
const sort = head => {
  const body = head.closest("table").tBodies[0];
  const column = head.cellIndex, sign = head.ariaSort === "ascending" ? -1 : 1;
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.ariaSort = sign > 0 ? "ascending" : "descending";
  const key = row => { const cell = row.cells[column].dataset.v; return cell === undefined ? null : cell };
  const compare = (a, b) => head.className === "number" ? a - b : a.localeCompare(b, undefined, {numeric: true});
  [...body.rows].map(row => [key(row), row])
    .sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b))
    .forEach(([, row]) => body.append(row));
};
for (const button of document.querySelectorAll("th span")) {
  button.addEventListener("click", () => sort(button.parentElement));
  button.addEventListener("keydown", event => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(button.parentElement); }
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(part => part.open = true));
"""


def render(
    study: Study,
    sentences: Sequence[str],
    notes: Sequence[str],
    figures: Sequence[Figure],
    results: Table,
    tokenizers: Table,
    provenance: tuple[Table, Table],
    schemes: Sequence[Figure] = (),
    scheme_notes: Sequence[str] = (),
    layers: Table | None = None,
) -> str:
    """The page as text. Everything that comes from the study is escaped here and nowhere else.

    schemes: figures of what the schemes do, folded away, as they show no result. layers: who stayed finite, of studies
    that watched their layers.
    """
    body = [
        "<header>",
        f"<h1>{escape(study.title)}</h1>",
        f'<p class="question">{escape(study.description)}</p>' if study.description else "",
        f'<p class="facts">{escape(_facts(study))}</p>',
        "</header>",
        '<section class="answer">',
        *(f"<p>{escape(sentence)}</p>" for sentence in _paragraphs(sentences)),
        "</section>",
        _problems(study),
        *(_figure(index, figure) for index, figure in enumerate(figures, 1)),
        _layers(layers),
        "<section>",
        "<h2>All results</h2>",
        '<p class="words notes hint">Click a heading to sort. Full precision is in <code>results.csv</code>.</p>',
        _notes(notes),
        _table(results, "scroll table", sortable=True) if results.rows else '<p class="none">No points.</p>',
        "</section>",
        "<section>",
        "<h2>Tokenizers</h2>",
        _table(tokenizers, "scroll", wrap=True) if tokenizers.rows else '<p class="none">No tokenizer is known.</p>',
        "</section>",
        *_schemes(schemes, scheme_notes, len(figures) + 1),
        "<details>",
        "<summary>Provenance</summary>",
        _table(provenance[0], "scroll", wrap=True) if provenance[0].rows else "",
        _table(provenance[1], "scroll", wrap=True) if provenance[1].rows else '<p class="none">No points.</p>',
        "</details>",
    ]
    return _document(study.title, [*body, "</main>", f"<script>{SCRIPT}</script>"])


def sheet(title: str, figures: Sequence[Figure]) -> str:
    """A page of figures alone."""
    head = ["<header>", f"<h1>{escape(title)}</h1>", "</header>"]
    return _document(title, [*head, *(_figure(index, figure) for index, figure in enumerate(figures, 1)), "</main>"])


def _document(title: str, body: Sequence[str]) -> str:
    """A whole file; `body` ends the main element that is opened here."""
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE.replace('FONTS', FONT_STACK)}</style>",
    ]
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", "<main>", *body]
    lines += ["</body>", "</html>"]
    return "\n".join(line for line in lines if line) + "\n"


def _schemes(figures: Sequence[Figure], notes: Sequence[str], first: int) -> list[str]:
    if not figures and not notes:
        return []
    drawn = [_figure(number, figure) for number, figure in enumerate(figures, first)]
    return ["<details>", "<summary>What the schemes do</summary>", _notes(notes), *drawn, "</details>"]


def _layers(table: Table | None) -> str:
    if table is None or not table.rows:
        return ""
    return f"<section>\n<h2>Who diverged</h2>\n{_table(table, 'scroll table', sortable=True)}\n</section>"


def _paragraphs(sentences: Sequence[str]) -> list[str]:
    """The first sentence stands alone, as the headline of the answer; the others follow as one paragraph."""
    return [sentences[0], " ".join(sentences[1:])] if len(sentences) > 1 else list(sentences)


def _facts(study: Study) -> str:
    finished = sum(point.status == "finished" for point in study.points)
    parts = [f"study {study.name}", f"{finished} of {count(len(study.points))} points finished"]
    if study.train_lengths:
        parts.append(f"trained at {listing([count(length) for length in study.train_lengths])} tokens")
    if study.swept:
        parts.append("swept: " + listing(study.swept))
    if study.created:
        parts.append(study.created.partition("T")[0])  # the time stands in the provenance
    return " · ".join(parts)


def _problems(study: Study) -> str:
    if not study.problems:
        return ""
    return f'<section class="problems"><b>Files that could not be used</b>{_notes(study.problems)}</section>'


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return '<ul class="notes">' + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


def _figure(number: int, figure: Figure) -> str:
    if figure.svg is None:
        drawing = '<p class="none">Nothing to draw: no point has the numbers for this figure.</p>'
    else:
        drawing = f'<div class="scroll drawing" tabindex="0">{inline(figure.svg, figure.name.replace("_", "-"))}</div>'
    return "\n".join(
        [
            "<section>",
            f"<h2>{escape(figure.title)}</h2>",
            "<figure>",
            drawing,
            f"<figcaption><b>Figure {number}.</b> {escape(figure.caption if figure.svg else figure.title + '.')}",
            _notes(figure.notes),
            "</figcaption>",
            "</figure>",
            "</section>",
        ]
    )


def _table(table: Table, classes: str, sortable: bool = False, wrap: bool = False) -> str:
    heads = []
    for name, numeric in table.columns:
        text = f'<span role="button" tabindex="0">{escape(name)}</span>' if sortable else escape(name)
        heads.append(f'<th scope="col"{_class(numeric)}>{text}</th>')
    rows = []
    for cells in table.rows:
        good = not sortable or cells[-1].text == "ok"
        tags = []
        for cell, (_, numeric) in zip(cells, table.columns, strict=True):
            value = f' data-v="{escape(str(cell.value))}"' if sortable and cell.value is not None else ""
            tags.append(f"<td{_class(numeric)}{value}>{escape(cell.text)}</td>")
        rows.append(("<tr>" if good else '<tr class="bad">') + "".join(tags) + "</tr>")
    return (
        f'<div class="{classes}" tabindex="0"><table{" class=wrap" if wrap else ""}>'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _class(numeric: bool) -> str:
    return ' class="number"' if numeric else ""
