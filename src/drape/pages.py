"""Pages of results, one file each: a template of assets/, the style that all share, everything inside, nothing fetched.

The pages of `drape demo`, `drape doctor` and `drape data check` are filled, and the parts that they share made, here.
"""

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Literal

from PIL import Image

import drape
from drape.storage import write_atomic

ASSETS = Path(drape.__file__).with_name("assets")


def fill(template: str, **values: str) -> str:
    """The page of `assets/TEMPLATE.html`, with the shared style and the version; `values` are HTML."""
    text, style = ((ASSETS / name).read_text(encoding="utf-8") for name in (f"{template}.html", "page.css"))
    return Template(text).substitute(values, style=style.strip(), version=escape(drape.__version__))


def write(path: Path, page: str) -> None:
    """Write a page, whole or not at all.  Raises CheckpointError where it cannot be written."""
    write_atomic(path, lambda part: part.write_text(page, encoding="utf-8"), len(page))


def facts(values: Mapping[str, str]) -> str:
    """What stands in the head of a page, as items of a <dl>."""
    return "\n".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())


def figure(title: str, picture: str, caption: str, *, wide: bool = False) -> str:
    """A card with a heading, a picture as HTML, and what to see in it; a wide one takes the whole row."""
    kind = ' class="wide"' if wide else ""
    return f"<figure{kind}>\n<h3>{escape(title)}</h3>\n{picture}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def image_uri(picture: Image.Image, kind: Literal["JPEG", "PNG"], **options: int) -> str:
    """The picture inside an address; options as Pillow's `save` takes them."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
