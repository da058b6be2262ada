"""One look for every figure: colours, markers, type, and the two forms of a drawing (its own file, or in the page).

Figures are drawn in the light colours. In the page these become CSS variables, so that one drawing follows the reader's
light or dark theme and prints in the light one.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

# Role: colour on light paper, colour on dark paper.
ROLES = {
    "ink": ("#1f2329", "#e6e8eb"),
    "muted": ("#5b6470", "#9aa4b0"),
    "axis": ("#b9c0c8", "#4a525c"),
    "grid": ("#e8ebee", "#2a3037"),
    "paper": ("#ffffff", "#14171b"),
}
# Ten hues found by search: every two are at least 18 apart in CIE L*a*b* (light paper; 15 on dark) for normal, protan,
# deutan and tritan sight (Machado et al. 2009), and each has a contrast of at least 3 with its paper.
HUES = (
    ("#088dfc", "#3fb9fc"),
    ("#dd7a16", "#efc346"),
    ("#007d68", "#40edc4"),
    ("#552795", "#dad1ff"),
    ("#89002e", "#e26c88"),
    ("#c462ba", "#b381b7"),
    ("#929554", "#d1d072"),
    ("#2b4468", "#608bff"),
    ("#7a4a00", "#be8b49"),
    ("#ff5195", "#f99887"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h")
FONT_STACK = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
WIDTH = 800.0
INK, MUTED, AXIS, GRID, PAPER = (ROLES[role][0] for role in ("ink", "muted", "axis", "grid", "paper"))


@dataclass(frozen=True)
class Look:
    """How one series is drawn, everywhere: a colour, a marker (hollow under an override) and a line style."""

    colour: str
    marker: str
    hollow: bool
    line: str | tuple

    @property
    def face(self) -> str:
        return PAPER if self.hollow else self.colour


def look(index: int, trained: bool) -> Look:
    """The look of series `index`: past the ten hues, colours return with other markers and another dash."""
    rounds = index // len(HUES)
    lines = ("-", (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5))) if trained else ((0, (4, 1.6)), (0, (2.4, 1.4)))
    return Look(HUES[index % len(HUES)][0], MARKERS[index % len(MARKERS)], not trained, lines[rounds % len(lines)])


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """matplotlib set for a figure called `name`: text stays text, no label is a formula, output repeats."""
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "text.color": INK,
        "axes.edgecolor": AXIS,
        "axes.labelcolor": MUTED,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": AXIS,
        "ytick.color": AXIS,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "xtick.major.size": 3.5,
        "ytick.major.size": 0,
        "lines.linewidth": 1.7,
        "lines.markersize": 5,
        "lines.markeredgewidth": 1.1,
        "lines.solid_capstyle": "round",
        "lines.dash_capstyle": "butt",
        "axes.unicode_minus": True,
    }
    # Measuring text in a script the bundled font lacks warns; the reader's own font draws it.
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def canvas(height: float) -> Canvas:
    """An empty drawing of WIDTH × `height` points."""
    drawn = Canvas(figsize=(WIDTH / 72, height / 72), facecolor=PAPER)
    FigureCanvasSVG(drawn)
    return drawn


def to_svg(drawn: Canvas, title: str, description: str) -> str:
    """The drawing as an SVG file; `title` and `description` are what a reader without sight is told."""
    buffer = io.StringIO()
    empty = {"Date": None, "Creator": None, "Format": None, "Type": None}
    drawn.savefig(buffer, format="svg", metadata=empty, facecolor=PAPER)
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!DOCTYPE[^>]*>\s*", "", buffer.getvalue(), flags=re.DOTALL)
    svg = _in_tags(svg, lambda tag: tag.replace("'DejaVu Sans'", FONT_STACK))
    words = f"<title>{escape(title, quote=False)}</title>\n <desc>{escape(description, quote=False)}</desc>"
    return re.sub(r"(<svg\b[^>]*>)", lambda match: f"{match.group(1)}\n {words}", svg, count=1)


def inline(svg: str, name: str) -> str:
    """The SVG file as an element of the page: no declarations, ids of its own, the theme's colours, scaled by CSS."""
    svg = svg[svg.index("<svg") :]
    head, body = svg[: svg.index(">") + 1], svg[svg.index(">") + 1 :]
    title = re.search(r"<title>(.*?)</title>", body, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', head)
    # A style element inside an inline drawing would apply to the whole page; the page's own sheet says the same.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", body, flags=re.DOTALL)

    def adapt(tag: str) -> str:
        tag = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', tag)
        tag = re.sub(r'(?:xlink:)?href="#([^"]*)"', rf'href="#{name}-\1"', tag)
        tag = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", tag)
        tag = tag.replace(f" font-family: {FONT_STACK};", "")
        for role, (light, _) in ROLES.items():
            tag = tag.replace(light, f"var(--{role})")
        for index, (light, _) in enumerate(HUES):
            tag = tag.replace(light, f"var(--hue{index})")
        return tag

    label = (title.group(1) if title else name).replace('"', "&quot;")
    return f'<svg {box.group(0) if box else ""} role="img" aria-label="{label}">{_in_tags(body, adapt).strip()}'


def _in_tags(svg: str, change: Callable[[str], str]) -> str:
    """`svg` with `change` applied inside its tags only, never to what a label says."""
    return re.sub(r"<[^<>]*>", lambda match: change(match.group(0)), svg)


def css_variables() -> tuple[str, str]:
    """The colours as CSS declarations, for light and for dark paper."""
    light = [f"--{role}:{colours[0]}" for role, colours in ROLES.items()]
    dark = [f"--{role}:{colours[1]}" for role, colours in ROLES.items()]
    light += [f"--hue{index}:{colours[0]}" for index, colours in enumerate(HUES)]
    dark += [f"--hue{index}:{colours[1]}" for index, colours in enumerate(HUES)]
    return ";".join(light), ";".join(dark)
