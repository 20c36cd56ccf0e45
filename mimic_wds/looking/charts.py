"""Charts as SVG, drawn from numbers: pure functions. Each says in its label what it shows, for those who cannot see it.

Colours are Okabe and Ito's ("Color universal design", 2008), which stay apart for all eyes; text takes the page's.
"""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

#: Blue, orange, green, purple, yellow, sky blue, vermilion, as RGB in hex.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#b5a800", "#56b4e9", "#d55e00")

WIDTH, ROW, LABELS, NUMBERS = 640, 22, 170, 120  # pixels
HEIGHT, LEFT, BOTTOM, TOP = 240, 56, 40, 12


def bars(title: str, rows: Mapping[str, float], unit: str = "") -> Markup:
    """A horizontal bar for each name, as long as its number; numbers stand beside them."""
    if not rows:
        return Markup("")
    most = max([*rows.values(), 1e-12])
    parts = []
    for number, (name, value) in enumerate(rows.items()):
        y = number * ROW
        length = value / most * (WIDTH - LABELS - NUMBERS)
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(LABELS - 8, y + 15, _short(name))
            + Markup('<rect x="{}" y="{}" width="{:.1f}" height="{}" fill="{}"/>').format(
                LABELS, y + 3, length, ROW - 6, PALETTE[0]
            )
            + Markup('<text x="{:.1f}" y="{}">{}</text>').format(LABELS + length + 6, y + 15, _number(value))
        )
    told = ", ".join(f"{name} {_number(value)}" for name, value in rows.items())
    return _svg(title, f"{title}{f' ({unit})' if unit else ''}: {told}", WIDTH, len(rows) * ROW, parts)


def histogram(
    title: str,
    edges: Sequence[float],
    counts: Sequence[float],
    x_label: str,
    marked: tuple[float, float] | None = None,
) -> Markup:
    """Counts between neighbouring edges; a range of the axis can be marked."""
    low, high = edges[0], edges[-1]
    most = max([*counts, 1])

    def across(value: float) -> float:
        return LEFT + (value - low) / ((high - low) or 1) * (WIDTH - LEFT - 16)

    bottom = HEIGHT - BOTTOM
    parts = []
    if marked:
        x0, x1 = (across(min(max(value, low), high)) for value in marked)
        parts.append(
            Markup(
                '<rect class="marked" x="{:.1f}" y="{}" width="{:.1f}" height="{}" fill="{}" fill-opacity="0.25"/>'
            ).format(x0, TOP, x1 - x0, bottom - TOP, PALETTE[1])
        )
    for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True):
        height = count / most * (bottom - TOP)
        parts.append(
            Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"/>').format(
                across(start) + 0.5, bottom - height, max(across(end) - across(start) - 1, 0.5), height, PALETTE[0]
            )
        )
    parts.append(_axes(low, high, most, across, x_label, "samples"))
    told = "; ".join(
        f"{_number(a)} to {_number(b)}: {_number(n)}"
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
        if n
    )
    return _svg(title, f"{title}, {x_label}: {told or 'nothing'}", WIDTH, HEIGHT, parts)


def line_chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str) -> Markup:
    """A line through the points (x, y) of each series, with a legend; what is not finite leaves a gap."""
    points = [(x, y) for line in series.values() for x, y in line if math.isfinite(y)]
    if not points:
        return Markup("")
    (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*points, strict=True))

    def across(x: float) -> float:
        return LEFT + (x - x0) / ((x1 - x0) or 1) * (WIDTH - LEFT - 16)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y0) / ((y1 - y0) or 1) * (HEIGHT - BOTTOM - TOP)

    parts = [_axes(x0, x1, y1, across, x_label, y_label, least=y0)]
    for number, (name, line) in enumerate(series.items()):
        colour = PALETTE[number % len(PALETTE)]
        for part in _runs(line):
            path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in part)
            parts.append(
                Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>').format(path, colour)
            )
        y = HEIGHT + 18 * number + 4
        parts.append(
            Markup('<rect x="{}" y="{}" width="18" height="4" fill="{}"/>').format(LEFT, y, colour)
            + Markup('<text x="{}" y="{}">{}</text>').format(LEFT + 26, y + 7, name)
        )
    ends = (f"{name} ends at {_number(line[-1][1])}" for name, line in series.items() if line)
    told = f"{title}, {y_label} by {x_label}: {'; '.join(ends)}"
    return _svg(title, told, WIDTH, HEIGHT + 18 * len(series) + 4, parts)


def _runs(line: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Stretches of finite points."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in line:
        if math.isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _axes(low, high, most, across, x_label, y_label, least=0.0) -> Markup:  # type: ignore[no-untyped-def]
    """Both axes with their ends and names."""
    bottom = HEIGHT - BOTTOM
    line = Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="currentColor"/>')
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    return Markup("").join(
        [
            line.format(LEFT, bottom, WIDTH - 16, bottom),
            line.format(LEFT, TOP, LEFT, bottom),
            text.format(across(low), bottom + 16, "start", _number(low)),
            text.format(across(high), bottom + 16, "end", _number(high)),
            text.format((LEFT + WIDTH) / 2, bottom + 32, "middle", x_label),
            text.format(LEFT - 6, TOP + 10, "end", _number(most)),
            text.format(LEFT - 6, bottom, "end", _number(least)),
            Markup('<text transform="translate(14 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>').format(
                (TOP + bottom) / 2, y_label
            ),
        ]
    )


def _svg(title: str, told: str, width: int, height: float, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="chart">').format(width, height, told)
    return head + Markup("<title>{}</title>").format(title) + Markup("").join(parts) + Markup("</svg>")


def _short(text: str, limit: int = 24) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _number(value: float) -> str:
    """As few digits as say it."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """A table; cells that are numbers stand at the right."""

    def cell(value: object) -> Markup:
        if isinstance(value, int | float):
            return Markup('<td class="number">{}</td>').format(_number(value))
        return Markup("<td>{}</td>").format(value)

    heads = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in head)
    lines = Markup("").join(Markup("<tr>{}</tr>").format(Markup("").join(map(cell, row))) for row in rows)
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(heads, lines)
