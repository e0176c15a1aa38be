"""The contact sheet of a data set: pairs one below the other, everything that is known of each side by side.

This file only lays out.  What there is to see of a pair is in sheet_pairs, what a net is given in sheet_inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from drape.survey.drawing import ALARM, INK, LINE, PAPER, QUIET, card, frame, joined, width_of, wrapped, write

HEIGHT = 256  # of a cell: a multiple of the sizes of all stages, so that their pixels are squares
NARROWEST, WIDEST = 160, 342  # of a cell
GAP = 14
MARGIN = 44
GUTTER = 210  # left of the cells, for what a row is
RADIUS = 6
TITLE, SMALL = 16, 13  # sizes of type
LINE_HEIGHT = 17
LINES = 3  # under a picture, at most
SWATCH = 18


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A picture, no larger than the cells of its row, under its name and above a few facts; or why there is none."""

    title: str
    picture: Image.Image | None = None
    lines: tuple[str, ...] = ()
    absent: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Cells of one size (width, height), and on their left what they are.

    failure   why there are no cells, in their place
    """

    title: str
    notes: tuple[str, ...]
    cells: tuple[Cell, ...]
    size: tuple[int, int]
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Key:
    """What colours mean: (name, colour) of each."""

    title: str
    swatches: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Head:
    """What the sheet shows: title, facts, the keys to its colours, and remarks for the foot."""

    title: str
    facts: tuple[tuple[str, ...], ...]
    keys: tuple[Key, ...]
    notes: tuple[str, ...] = ()


Block = Sequence[Row]
"""The rows of one pair."""


def cell_size(height: int, width: int) -> tuple[int, int]:
    """(width, height) of the cells for pictures of this height and width."""
    return min(max(round(HEIGHT * width / height), NARROWEST), WIDEST), HEIGHT


def draw_sheet(head: Head, blocks: Sequence[Block]) -> Image.Image:
    """The sheet as one picture."""
    widest = max((_row_width(row) for block in blocks for row in block), default=0)
    width = 2 * MARGIN + max(widest, GUTTER + 4 * HEIGHT)
    room = width - 2 * MARGIN
    notes = [line for note in head.notes for line in wrapped(note, room, TITLE)]
    height = MARGIN + _head(None, head, room) + sum(_block_height(block) for block in blocks)
    sheet = Image.new("RGB", (width, height + GAP + 24 * len(notes) + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    y = MARGIN + _head(pen, head, room)
    for block in blocks:
        pen.line((MARGIN, y, width - MARGIN, y), fill=LINE, width=2)
        _draw_block(sheet, block, y)
        y += _block_height(block)
    pen.line((MARGIN, y, width - MARGIN, y), fill=LINE, width=2)
    for number, note in enumerate(notes):
        write(pen, (MARGIN, y + GAP + 24 * number), note, size=TITLE, ink=QUIET)
    return sheet


def _head(pen: ImageDraw.ImageDraw | None, head: Head, room: int) -> int:
    """Height of title, facts and keys, which are drawn where there is a pen."""
    y = MARGIN
    if pen:
        write(pen, (MARGIN, y - 8), head.title, size=40, width=room)
    y += 50
    for facts in head.facts:
        for line in joined(facts, room, 18):
            if pen:
                write(pen, (MARGIN, y), line, size=18, ink=QUIET)
            y += 27
    y += 8
    for key in head.keys:
        y = _key(pen, key, y, room)
    return y + GAP - MARGIN


def _key(pen: ImageDraw.ImageDraw | None, key: Key, y: int, room: int) -> int:
    """Draw a key at height y, on as many lines as it takes; the height below it."""
    x = start = MARGIN + 110
    if pen:
        write(pen, (MARGIN, y), key.title, size=TITLE)
    for name, colour in key.swatches:
        wide = SWATCH + 8 + round(width_of(name, TITLE)) + 22
        if x + wide > MARGIN + room and x > start:
            x, y = start, y + 26
        if pen:
            pen.rounded_rectangle((x, y, x + SWATCH, y + SWATCH), 4, fill=colour, outline=INK)
            write(pen, (x + SWATCH + 8, y), name, size=TITLE)
        x += wide
    return y + 30


def _draw_block(sheet: Image.Image, block: Block, top: int) -> None:
    pen = ImageDraw.Draw(sheet)
    y = top + GAP
    for number, row in enumerate(block):
        write(pen, (MARGIN, y), row.title, size=22 if number == 0 else 19, width=GUTTER - GAP)
        line = y + 32
        for note in row.notes:
            for text in wrapped(note, GUTTER - GAP, SMALL + 1):
                write(pen, (MARGIN, line), text, size=SMALL + 1, ink=QUIET)
                line += LINE_HEIGHT + 1
            line += 4
        if row.failure:
            _failure(pen, row, y)
        for column, cell in enumerate(row.cells):
            _draw_cell(sheet, pen, cell, (MARGIN + GUTTER + column * (row.size[0] + GAP), y), row.size)
        y += _row_height(row) + GAP


def _draw_cell(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, cell: Cell, place: tuple[int, int], size: tuple[int, int]
) -> None:
    x, y = place
    write(pen, (x, y), cell.title, size=TITLE, width=size[0])
    y += TITLE + 8
    if cell.picture is None:
        frame(pen, (x, y), size, RADIUS, fill=PAPER)
        _middle(pen, (x, y), size, cell.absent)
    else:
        card(sheet, cell.picture, (x, y), size, RADIUS)
    for number, text in enumerate(_lines_of(cell, size[0])):
        write(pen, (x, y + size[1] + 6 + number * LINE_HEIGHT), text, size=SMALL, ink=QUIET)


def _failure(pen: ImageDraw.ImageDraw, row: Row, y: int) -> None:
    """A wide empty cell with the reason in it."""
    place, size = (MARGIN + GUTTER, y + 2), (4 * HEIGHT, _row_height(row) - 4)
    frame(pen, place, size, RADIUS, fill=PAPER)
    for number, text in enumerate(wrapped(row.failure, size[0] - 4 * GAP, TITLE, most=6)):
        write(pen, (place[0] + 2 * GAP, place[1] + 20 + 24 * number), text, size=TITLE, ink=ALARM)


def _middle(pen: ImageDraw.ImageDraw, place: tuple[int, int], size: tuple[int, int], text: str) -> None:
    """Text in the middle of a cell."""
    lines = wrapped(text, size[0] - 2 * GAP, SMALL + 1, most=9)
    y = place[1] + (size[1] - len(lines) * LINE_HEIGHT) // 2
    for number, line in enumerate(lines):
        x = place[0] + (size[0] - width_of(line, SMALL + 1)) / 2
        write(pen, (x, y + number * LINE_HEIGHT), line, size=SMALL + 1, ink=ALARM)


def _lines_of(cell: Cell, width: int) -> list[str]:
    return [text for line in cell.lines for text in wrapped(line, width, SMALL)][:LINES]


def _row_width(row: Row) -> int:
    return GUTTER + len(row.cells) * (row.size[0] + GAP) - GAP


def _row_height(row: Row) -> int:
    notes = sum(len(wrapped(note, GUTTER - GAP, SMALL + 1)) * (LINE_HEIGHT + 1) + 4 for note in row.notes)
    if row.failure:
        return max(32 + notes, 40 + 24 * len(wrapped(row.failure, 4 * HEIGHT - 4 * GAP, TITLE, most=6)))
    lines = max((len(_lines_of(cell, row.size[0])) for cell in row.cells), default=0)
    return max(32 + notes, TITLE + 8 + row.size[1] + 6 + lines * LINE_HEIGHT)


def _block_height(block: Block) -> int:
    return GAP + sum(_row_height(row) + GAP for row in block)
