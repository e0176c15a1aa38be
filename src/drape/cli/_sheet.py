"""The contact sheet: clothes along the top, people down the left, everybody in everything."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

from drape.pipeline.tryon import Dressed

CELL = (240, 320)  # width, height of a picture on the sheet
GAP = 14
HEAD = 126  # height of title and facts
MARGIN = 48
NAME = 34  # height of the line with a name under a picture
RADIUS = 10

PAPER, INK, QUIET, LINE = "#f6f5f2", "#1c1b19", "#6d6a64", "#d9d6cf"


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
    pen.text((MARGIN, MARGIN - 8), words.title, fill=INK, font=_font(44))
    for number, text in enumerate(_lines(words.facts, width - 2 * MARGIN, 20)[:2]):
        pen.text((MARGIN, MARGIN + 52 + 28 * number), text, fill=QUIET, font=_font(20))
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
        pen.text((MARGIN, y), _fitted(note, width - 2 * MARGIN, 17), fill=QUIET, font=_font(17))
    return sheet


def _picture(sheet: Image.Image, picture: Image.Image, place: tuple[int, int]) -> None:
    """Put a picture into a cell, whole, centred, with rounded corners."""
    fitted = ImageOps.contain(picture, CELL, Image.Resampling.LANCZOS)
    card = Image.new("RGB", CELL, "white")
    card.paste(fitted, ((CELL[0] - fitted.width) // 2, (CELL[1] - fitted.height) // 2))
    corners = Image.new("L", (CELL[0] * 4, CELL[1] * 4), 0)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, CELL[0] * 4 - 1, CELL[1] * 4 - 1), RADIUS * 4, fill=255)
    sheet.paste(card, place, corners.resize(CELL, Image.Resampling.LANCZOS))
    box = (place[0], place[1], place[0] + CELL[0] - 1, place[1] + CELL[1] - 1)
    ImageDraw.Draw(sheet).rounded_rectangle(box, RADIUS, outline=LINE)


def _name(pen: ImageDraw.ImageDraw, name: str, place: tuple[int, int], ink: str) -> None:
    text = _fitted(name, CELL[0], 20)
    middle = place[0] + (CELL[0] - pen.textlength(text, font=_font(20))) / 2
    pen.text((middle, place[1] + CELL[1] + 6), text, fill=ink, font=_font(20))


def _rules(pen: ImageDraw.ImageDraw, left: int, top: int, right: int, bottom: int) -> None:
    """Thin lines between what was given and what was made."""
    x, y = left - GAP - GAP // 2 + 3, top - GAP + 3
    pen.line((x, MARGIN + HEAD, x, bottom - MARGIN), fill=LINE, width=2)
    pen.line((MARGIN, y, right - MARGIN, y), fill=LINE, width=2)


def _lines(parts: Sequence[str], width: int, size: int) -> list[str]:
    """The parts with dots between them, a new line where the next would not fit."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}  \u00b7  {part}" if lines else part
        if lines and _font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_fitted(part, width, size))
    return lines


def _fitted(text: str, width: int, size: int) -> str:
    """The text, cut with an ellipsis where it is wider than `width`."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
