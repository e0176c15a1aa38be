"""The plots and tables of a survey's page: a few lines of SVG and HTML each, in the colours of the page."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from drape.pages import figure

WIDTH, HEIGHT, FOOT = 360, 150, 18
"""Of a histogram in units of its own, and the room below for its scale."""
LEAST_SHARE = 0.0005
"""Labels below this share of the pictures are left out of the bars."""


def figures_of(statistics: Mapping[str, Any]) -> list[str]:
    """Every figure that the numbers suffice for."""
    drawn = [
        *(_match(split, about) for split, about in statistics.get("match", {}).get("pairs", {}).items()),
        _brightness(statistics.get("brightness", {})),
        _labels(statistics.get("labels", {})),
        _palette(statistics.get("palette", []), statistics.get("colours", {})),
        _sizes(statistics.get("sizes", {})),
    ]
    return [each for each in drawn if each]


def histogram(series: Mapping[str, Sequence[float | int]], ticks: Mapping[float, str], label: str) -> str:
    """Bars of one or two series, each scaled to its own sum; `ticks` are places from 0 to 1 and what stands there."""
    top = max((max(values) / max(sum(values), 1) for values in series.values() if len(values)), default=0) or 1
    parts: list[str] = []
    for number, values in enumerate(series.values()):
        step, total = WIDTH / len(values), max(sum(values), 1)
        for place, value in enumerate(values):
            height = value / total / top * (HEIGHT - FOOT - 6)
            if height:
                parts.append(
                    f'<rect class="s{number}" x="{place * step + 0.5:.1f}" y="{HEIGHT - FOOT - height:.1f}" '
                    f'width="{step - 1:.1f}" height="{height:.1f}"/>'
                )
    line = f'<line x1="0" y1="{HEIGHT - FOOT}" x2="{WIDTH}" y2="{HEIGHT - FOOT}"/>'
    texts = "".join(
        f'<text x="{place * WIDTH:.0f}" y="{HEIGHT - 4}" text-anchor="{_anchor(place)}">{escape(text)}</text>'
        for place, text in ticks.items()
    )
    legend = "".join(
        f'<span class="key s{number}">{escape(name)}</span>' for number, name in enumerate(series) if len(series) > 1
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(parts)}{line}{texts}'
        f'</svg><div class="legend">{legend}</div>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the rows; it scrolls in itself where it is too wide."""
    top = "".join(f'<th scope="col">{escape(each)}</th>' for each in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(each)}</td>" for each in row[1:])}</tr>'
        for row in rows
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="table">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def measures_table(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    """Every measure with its quantiles over the set."""
    rows = [
        [name, f"{each['count']:,}", *(f"{each['quantiles'][place]:.4g}" for place in (0, 1, 3, 5, 6))]
        for name, each in numbers.items()
    ]
    return table(["measure", "pairs", "least", "5 %", "middle", "95 %", "most"], rows)


def _match(split: str, about: Mapping[str, Any]) -> str:
    edges = about["edges"]
    ticks = {place / 4: f"{edges[0] + (edges[-1] - edges[0]) * place / 4:.0f}" for place in range(5)}
    plot = histogram(
        {"own cloth": about["own"], "another's cloth": about["others"]}, ticks, f"colour distances of {split}"
    )
    return figure(
        f"Cloth against what is worn: {split}",
        plot,
        f"Distance of colours (CIELAB units) in {about['pairs']:,} pairs. Usual is {about['usual']:.1f}; "
        f"{about['closer']:.1%} of the other clothes suit better than a person's own. Two hills apart: clothes and "
        "people belong together; one hill: they do not, or all clothes look alike.",
    )


def _brightness(counts: Mapping[str, Sequence[int]]) -> str:
    series = {
        {"person": "people", "cloth": "clothes"}.get(kind, kind): values
        for kind, values in counts.items()
        if sum(values)
    }
    if not series:
        return ""
    plot = histogram(series, {0.0: "black", 0.5: "128", 1.0: "white"}, "brightness of the pictures")
    return figure("Brightness of the pictures", plot, "Mean level of each picture, from 0 to 255.")


def _labels(labels: Mapping[str, Mapping[str, float]]) -> str:
    shown = {name: each for name, each in labels.items() if each["share"] >= LEAST_SHARE and name != "background"}
    if not shown:
        return ""
    most = max(each["share"] for each in shown.values())
    rows = "".join(
        f'<li><span>{escape(name)}</span><i style="--w:{each["share"] / most:.4f}"></i>'
        f"<b>{each['share']:.1%}</b><em>{each['pictures']:.0%}</em></li>"
        for name, each in sorted(shown.items(), key=lambda row: -row[1]["share"])
    )
    rare = [name for name, each in labels.items() if each["share"] < LEAST_SHARE]
    never = f" Next to never: {', '.join(rare)}." if rare else ""
    return figure(
        "What the parses hold",
        f'<ul class="bars">{rows}</ul>',
        f"Mean share of the picture, and share of the pictures that have any. The rest is background.{never}",
    )


def _palette(colours: Sequence[Mapping[str, Any]], means: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    if not colours:
        return ""
    swatches = "".join(
        f'<li style="--c:rgb({",".join(map(str, each["rgb"]))});flex-grow:{100 * each["share"]:.2f}" '
        f'title="{each["share"]:.1%}">{_percent(each["share"])}</li>'
        for each in colours
    )
    rows = [
        [
            kind,
            *(
                f"{mean:.0f}\u00a0±\u00a0{spread:.0f}"
                for mean, spread in zip(each["mean"], each["spread"], strict=True)
            ),
        ]
        for kind, each in means.items()
        if each
    ]
    facts = table(["mean level of", "red", "green", "blue"], rows) if rows else ""
    return figure(
        "Colours of the clothes",
        f'<ul class="swatches">{swatches}</ul>{facts}',
        "The commonest of 64 colours inside the cloth masks, and mean levels of whole pictures with their spread "
        "from picture to picture.",
    )


def _percent(share: float) -> str:
    """What stands on a swatch that is wide enough."""
    return f"<span>{share:.0%}</span>" if share >= 0.08 else ""


def _sizes(sizes: Mapping[str, Mapping[str, int]]) -> str:
    if not sizes:
        return ""
    rows = [
        [kind.replace("_", " "), ", ".join(f"{size} ({count:,})" for size, count in list(each.items())[:4])]
        for kind, each in sizes.items()
    ]
    return figure("Sizes", table(["file", "height x width (how many)"], rows), "Sizes of the files by kind.")


def _anchor(place: float) -> str:
    return "start" if place <= 0 else "end" if place >= 1 else "middle"
