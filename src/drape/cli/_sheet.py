"""The contact sheet: clothes along the top, people down the left, everybody in everything."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageOps

from drape.pipeline.tryon import Dressed
from drape.survey.drawing import INK, LINE, PAPER, QUIET, card, fitted, joined, width_of, write

CELL = (240, 320)  # width, height of a picture on the sheet
GAP = 14
HEAD = 126  # height of title and facts
MARGIN = 48
NAME = 34  # height of the line with a name under a picture


@dataclass(frozen=True, kw_only=True)
class Words:
    """The title, the facts under it on at most two lines, and the lines at the foot."""

    title: str
    facts: tuple[str, ...]
    notes: tuple[str, ...]


def draw_sheet(rows: Sequence[Sequence[Dressed]], words: Words) -> Image.Image:
    """The sheet as one picture.  `rows` has one row per person and one column per cloth, none empty."""
    head, foot = HEAD, 28 + 24 * len(words.notes)
    pitch_x, pitch_y = CELL[0] + GAP, CELL[1] + GAP
    left, top = MARGIN + pitch_x + GAP, MARGIN + head + pitch_y + NAME + GAP
    width = left + pitch_x * len(rows[0]) - GAP + MARGIN
    height = top + (pitch_y + NAME) * len(rows) - GAP + foot + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    write(pen, (MARGIN, MARGIN - 8), words.title, size=44)
    for number, text in enumerate(joined(words.facts, width - 2 * MARGIN, 20)[:2]):
        write(pen, (MARGIN, MARGIN + 52 + 28 * number), text, size=20, ink=QUIET)
    for column, dressed in enumerate(rows[0]):
        place = left + column * pitch_x, MARGIN + head
        _picture(sheet, Image.fromarray(dressed.cloth.photo), place)
        _name(pen, dressed.cloth.name, place, INK)
    for row, line in enumerate(rows):
        y = top + row * (pitch_y + NAME)
        _picture(sheet, Image.fromarray(line[0].person.photo), (MARGIN, y))
        _name(pen, line[0].person.name, (MARGIN, y), INK)
        for column, dressed in enumerate(line):
            _picture(sheet, dressed.image, (left + column * pitch_x, y))
    _rules(pen, left, top, width, height - foot)
    for number, note in enumerate(words.notes):
        y = height - MARGIN - foot + 28 + 24 * number
        write(pen, (MARGIN, y), note, size=17, ink=QUIET, width=width - 2 * MARGIN)
    return sheet


def _picture(sheet: Image.Image, picture: Image.Image, place: tuple[int, int]) -> None:
    """Put a picture into a cell, whole, centred, with rounded corners."""
    card(sheet, ImageOps.contain(picture, CELL, Image.Resampling.LANCZOS), place, CELL)


def _name(pen: ImageDraw.ImageDraw, name: str, place: tuple[int, int], ink: str) -> None:
    text = fitted(name, CELL[0], 20)
    middle = place[0] + (CELL[0] - width_of(text, 20)) / 2
    write(pen, (middle, place[1] + CELL[1] + 6), text, size=20, ink=ink)


def _rules(pen: ImageDraw.ImageDraw, left: int, top: int, right: int, bottom: int) -> None:
    """Thin lines between what was given and what was made."""
    x, y = left - GAP - GAP // 2 + 3, top - GAP + 3
    pen.line((x, MARGIN + HEAD, x, bottom - MARGIN), fill=LINE, width=2)
    pen.line((MARGIN, y, right - MARGIN, y), fill=LINE, width=2)
