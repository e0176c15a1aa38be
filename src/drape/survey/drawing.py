"""What every sheet of drape is drawn with: one paper, one ink, one typeface, rounded pictures, text that fits."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, QUIET, LINE, ALARM = "#f6f5f2", "#1c1b19", "#6d6a64", "#d9d6cf", "#a3271c"

SMALL = 18
"""Up to this size of type words are set apart by WORD_SPACE of it: the typeface's own space, hinted, is two pixels."""
WORD_SPACE = 0.29

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Place = tuple[int, int]
"""x, y in pixels of the sheet."""
Spot = tuple[float | int, float | int]
"""The same where text may begin between two pixels."""


def card(sheet: Image.Image, picture: Image.Image, place: Place, size: tuple[int, int], radius: int = 10) -> None:
    """Put a picture, no larger than (width, height) `size`, into the middle of a white card with rounded corners."""
    ground = Image.new("RGB", size, "white")
    ground.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
    sheet.paste(ground, place, _rounded(size, radius))
    frame(ImageDraw.Draw(sheet), place, size, radius)


def frame(pen: ImageDraw.ImageDraw, place: Place, size: tuple[int, int], radius: int = 10, fill: str = "") -> None:
    """The thin line around a card."""
    box = (place[0], place[1], place[0] + size[0] - 1, place[1] + size[1] - 1)
    pen.rounded_rectangle(box, radius, outline=LINE, fill=fill or None)


def write(pen: ImageDraw.ImageDraw, place: Spot, text: str, *, size: int, ink: str = INK, width: int = 0) -> None:
    """One line of text, cut with dots where it is wider than `width` (0: as wide as it is)."""
    shown = fitted(text, width, size) if width else text
    face, x = font(size, shown), place[0]
    for part in _parts(shown, size):
        pen.text((x, place[1]), part, fill=ink, font=face)
        x += round(face.getlength(part)) + WORD_SPACE * size


def joined(parts: Sequence[str], width: int, size: int) -> list[str]:
    """The parts with dots between them, a new line where the next would not fit."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}  \u00b7  {part}" if lines else part
        if lines and width_of(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(fitted(part, width, size))
    return lines


def wrapped(text: str, width: int, size: int, most: int = 99) -> list[str]:
    """The text on at most so many lines, broken between words, and in words that are wider than a line."""
    lines: list[str] = []
    for word in (piece for whole in text.split() for piece in _pieces(whole, width, size)):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    return [fitted(line, width, size) for line in lines]


def fitted(text: str, width: int, size: int) -> str:
    """The text, cut with dots where it is wider than `width`."""
    if width_of(text, size) <= width:
        return text
    return text[: _longest(text, width - width_of("...", size), size)].rstrip() + "..."


def width_of(text: str, size: int) -> float:
    """Pixels that a line of text takes."""
    face, parts = font(size, text), _parts(text, size)
    if len(parts) == 1:
        return face.getlength(text)
    return sum(round(face.getlength(part)) for part in parts) + WORD_SPACE * size * (len(parts) - 1)


def font(size: int, text: str = "") -> Font:
    """The typeface at this size in pixels: Pillow's own, and where it lacks a letter of the text, matplotlib's."""
    return _own(size) if all(letter == "\u00b7" or " " <= letter <= "~" for letter in text) else _wide(size)


def _parts(text: str, size: int) -> list[str]:
    """What is drawn in one piece: words where type is small."""
    return text.split(" ") if size <= SMALL else [text]


def _pieces(word: str, width: int, size: int) -> list[str]:
    """The word, in pieces that fit into a line; one that has to be broken is broken after / or _ if it can be."""
    pieces: list[str] = []
    while width_of(word, size) > width and len(word) > 1:
        most = max(1, _longest(word, width, size))
        broken = word.rfind("/", 0, most) + 1 or word.rfind("_", 0, most) + 1 or most
        pieces.append(word[:broken])
        word = word[broken:]
    return [*pieces, word]


def _longest(text: str, width: float | int, size: int) -> int:
    """How many letters of the text fit into `width`."""
    return bisect_right(range(1, len(text) + 1), width, key=lambda count: width_of(text[:count], size))


@cache
def _rounded(size: tuple[int, int], radius: int) -> Image.Image:
    """A card's shape, 255 inside."""
    corners = Image.new("L", (size[0] * 4, size[1] * 4), 0)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, size[0] * 4 - 1, size[1] * 4 - 1), radius * 4, fill=255)
    return corners.resize(size, Image.Resampling.LANCZOS)


@cache
def _own(size: int) -> Font:
    return ImageFont.load_default(size)


@cache
def _wide(size: int) -> Font:
    from pathlib import Path

    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
