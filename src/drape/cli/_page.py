"""The web page of the demo: one file, every picture inside it, nothing fetched."""

from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image

from drape import pages
from drape.pipeline.tryon import Dressed

WIDEST = 480  # pixels; photos are made no wider than this for the page


def draw_page(rows: Sequence[Sequence[Dressed]], facts: Mapping[str, str], command: str) -> str:
    """The page as HTML.  `rows` has one row per person and one column per cloth, none empty."""
    clothes = [dressed.cloth for dressed in rows[0]]
    return pages.fill(
        "demo",
        summary=escape(f"{_count(len(rows), 'person', 'people')} in {_count(len(clothes), 'cloth', 'clothes')}"),
        facts=pages.facts(facts),
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
    return pages.image_uri(picture, "JPEG", quality=90, subsampling=0)


def _png(picture: Image.Image) -> str:
    return pages.image_uri(picture, "PNG", optimize=True)
