"""The web page of the demo: one file, every picture inside it, nothing fetched."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from PIL import Image

import drape
from drape.pipeline.tryon import Dressed

TEMPLATE = Path(drape.__file__).with_name("assets") / "demo.html"
WIDEST = 480  # pixels; photos are made no wider than this for the page


def draw_page(rows: Sequence[Sequence[Dressed]], facts: Mapping[str, str], command: str) -> str:
    """The page as HTML.  `rows` has one row per person and one column per cloth, none empty."""
    clothes = [dressed.cloth for dressed in rows[0]]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        summary=escape(f"{_count(len(rows), 'person', 'people')} in {_count(len(clothes), 'cloth', 'clothes')}"),
        facts="\n".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in facts.items()),
        thumbnails="\n".join(
            f".c{number} {{ background-image: url({_jpeg(Image.fromarray(cloth.photo))}); }}"
            for number, cloth in enumerate(clothes)
        ),
        photos="\n".join(
            f".p{number} {{ --photo: url({_jpeg(Image.fromarray(line[0].person.photo))}); }}"
            for number, line in enumerate(rows)
        ),
        wardrobe="\n".join(
            f'<li><span class="thumb c{number}" role="img" aria-label="{escape(cloth.name)}"></span>'
            f"<b>{escape(cloth.name)}</b><small>{escape(cloth.source)}</small></li>"
            for number, cloth in enumerate(clothes)
        ),
        people="\n".join(_person(number, line) for number, line in enumerate(rows)),
        command=escape(command),
        version=escape(drape.__version__),
    )


def _person(number: int, line: Sequence[Dressed]) -> str:
    name = escape(line[0].person.name)
    looks = "\n".join(_look(column, dressed) for column, dressed in enumerate(line))
    return (
        f'<section class="person p{number}" aria-labelledby="p{number}">\n'
        f'<header><span class="photo" role="img" aria-label="photo of {name}"></span>'
        f'<h2 id="p{number}">{name}</h2></header>\n'
        f'<ul class="looks">\n{looks}\n</ul>\n</section>'
    )


def _look(column: int, dressed: Dressed) -> str:
    person, cloth = escape(dressed.person.name), escape(dressed.cloth.name)
    return (
        f'<li><button type="button" aria-label="{person} in {cloth}: compare" '
        f'data-raw="{_png(dressed.raw)}"><img src="{_jpeg(dressed.image)}" alt="{person} in {cloth}"></button>'
        f'<span class="name"><span class="thumb c{column}"></span>{cloth}</span></li>'
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _jpeg(picture: Image.Image) -> str:
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.LANCZOS)
    return _uri(picture, "JPEG", quality=90, subsampling=0)


def _png(picture: Image.Image) -> str:
    return _uri(picture, "PNG", optimize=True)


def _uri(picture: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
