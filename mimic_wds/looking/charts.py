"""Charts as SVG, drawn from numbers: pure functions. Each says in its label what it shows, for those who cannot see it.

Colours are Okabe and Ito's ("Color universal design", 2008), which stay apart for all eyes; text takes the page's.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

#: Blue, orange, green, purple, yellow, sky blue, vermilion, as RGB in hex.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#b5a800", "#56b4e9", "#d55e00")

WIDTH, ROW, LABELS, NUMBERS = 640, 22, 170, 150  # pixels
HEIGHT, LEFT, BOTTOM, TOP = 240, 64, 40, 12
HEAD = 28  # pixels for a chart's title

#: Ticks of an axis at most.
TICKS = 6


def bars(title: str, rows: Mapping[str, float], unit: str = "", shares: bool = False) -> Markup:
    """A horizontal bar for each name, as long as its number; numbers stand beside them, with their share if wanted."""
    if not rows:
        return Markup("")
    most, total = max([*rows.values(), 1e-12]), sum(rows.values()) or 1
    said = {name: _number(value) + (f" ({value / total:.1%})" if shares else "") for name, value in rows.items()}
    parts = []
    for number, (name, value) in enumerate(rows.items()):
        y = number * ROW
        length = value / most * (WIDTH - LABELS - NUMBERS)
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}<title>{}</title></text>').format(
                LABELS - 8, y + 15, _short(name), name
            )
            + Markup('<rect class="bar" x="{}" y="{}" width="{:.1f}" height="{}" fill="{}"/>').format(
                LABELS, y + 3, length, ROW - 6, PALETTE[0]
            )
            + Markup('<text x="{:.1f}" y="{}">{}</text>').format(LABELS + length + 6, y + 15, said[name])
        )
    told = ", ".join(f"{name} {number}" for name, number in said.items())
    return _svg(f"{title}{f' ({unit})' if unit else ''}", told, len(rows) * ROW, parts)


def histogram(
    title: str,
    edges: Sequence[float],
    counts: Sequence[float],
    x_label: str,
    marked: tuple[float, float] | None = None,
    unit: str = "samples",
) -> Markup:
    """Counts of `unit` between neighbouring edges; a range of the axis can be marked, its ends are written there."""
    low, high = edges[0], edges[-1]
    most = max([*counts, 1])
    bottom = HEIGHT - BOTTOM

    def across(value: float) -> float:
        return LEFT + (value - low) / ((high - low) or 1) * (WIDTH - LEFT - 16)

    whole = (all(float(edge).is_integer() for edge in edges), True)
    parts = [_axes(low, high, most, across, x_label, unit, whole=whole)]
    if marked:
        x0, x1 = (across(min(max(value, low), high)) for value in marked)
        parts.append(_marked(x0, x1, marked))
    spans = []
    for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True):
        height = count / most * (bottom - TOP)
        spans.append(f"{_number(start)} to {_number(end)}: {_number(count)}")
        parts.append(
            Markup(
                '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}">'
                "<title>{}</title></rect>"
            ).format(
                across(start) + 0.5,
                bottom - height,
                max(across(end) - across(start) - 1, 0.5),
                height,
                PALETTE[0],
                spans[-1],
            )
        )
    told = "; ".join(span for span, count in zip(spans, counts, strict=True) if count)
    return _svg(title, f"{unit} by {x_label}: {told or 'nothing'}", HEIGHT, parts)


def _marked(x0: float, x1: float, ends: tuple[float, float]) -> Markup:
    """A range of the axis of a histogram: shaded, with a dashed line and a number at each end."""
    shade = Markup(
        '<rect class="marked" x="{:.1f}" y="{}" width="{:.1f}" height="{}" fill="{}" fill-opacity="0.25"/>'
    ).format(x0, TOP, x1 - x0, HEIGHT - BOTTOM - TOP, PALETTE[1])
    line = Markup(
        '<line x1="{0:.1f}" y1="{1}" x2="{0:.1f}" y2="{2}" stroke="currentColor" stroke-dasharray="4 3"/>'
        '<text x="{0:.1f}" y="{3}" text-anchor="{4}">{5}</text>'
    )
    sides = ((x0, "end", ends[0]), (x1, "start", ends[1]))
    return shade + Markup("").join(
        line.format(x, TOP, HEIGHT - BOTTOM, TOP - 2, side, _number(end)) for x, side, end in sides
    )


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
    told = f"{y_label} by {x_label}: {'; '.join(ends)}"
    return _svg(title, told, HEIGHT + 18 * len(series) + 4, parts)


def _runs(line: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Stretches of finite points."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in line:
        if math.isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _axes(
    low: float,
    high: float,
    most: float,
    across: Callable[[float], float],
    x_label: str,
    y_label: str,
    least: float = 0,
    whole: tuple[bool, bool] = (False, False),
) -> Markup:
    """Both axes with their ticks and names, and thin lines across at the ticks of the upright one.

    whole: whether the ticks of each axis, x first, are whole numbers only.
    """
    bottom = HEIGHT - BOTTOM
    line = Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="currentColor" stroke-opacity="{}"/>')
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    parts = [line.format(LEFT, bottom, WIDTH - 16, bottom, 1), line.format(LEFT, TOP, LEFT, bottom, 1)]
    for x in ticks(low, high, whole[0]):
        parts += [
            line.format(across(x), bottom, across(x), bottom + 4, 1),
            text.format(across(x), bottom + 18, "middle", _number(x)),
        ]
    for value in ticks(least, most, whole[1]):
        y = bottom - (value - least) / ((most - least) or 1) * (bottom - TOP)
        parts += [line.format(LEFT, y, WIDTH - 16, y, 0.2), text.format(LEFT - 6, y + 4, "end", _number(value))]
    upright = Markup('<text transform="translate(12 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>')
    parts += [
        text.format((LEFT + WIDTH) / 2, bottom + 36, "middle", x_label),
        upright.format((TOP + bottom) / 2, y_label),
    ]
    return Markup("").join(parts)


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """At most TICKS round numbers from low to high: multiples of 1, 2 or 5 times a power of ten, maybe whole only."""
    if not high > low:
        return [low]
    least = max((high - low) / (TICKS - 1), 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= least)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)] or [low]


def _svg(title: str, told: str, height: float, parts: Sequence[Markup]) -> Markup:
    """A chart under its title. `told` is what it shows in words."""
    head = Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="chart"><text class="title" x="0" y="16">{}</text>'
    ).format(WIDTH, height + HEAD, f"{title}, {told}", title)
    return head + Markup('<g transform="translate(0 {})">').format(HEAD) + Markup("").join(parts) + Markup("</g></svg>")


def _short(text: str, limit: int = 24) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _number(value: float) -> str:
    """As few digits as say it."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> Markup:
    """A table; columns of numbers stand at the right."""

    def cell(value: object) -> Markup:
        if isinstance(value, int | float):
            return Markup('<td class="number">{}</td>').format(_number(value))
        return Markup("<td>{}</td>").format(value)

    numbers = [isinstance(value, int | float) for value in rows[0]] if rows else [False] * len(head)
    heads = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(Markup(' class="number"' if is_number else ""), name)
        for name, is_number in zip(head, numbers, strict=True)
    )
    lines = Markup("").join(Markup("<tr>{}</tr>").format(Markup("").join(map(cell, row))) for row in rows)
    named = Markup("<caption>{}</caption>").format(caption) if caption else ""
    return Markup("<table>{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(named, heads, lines)
