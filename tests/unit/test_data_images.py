"""Broken image files: each gives one line that names the file."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drape.data.images import read_labels, read_mask, read_photo, read_rgb, size_of
from drape.errors import DataError

READERS = [read_rgb, read_photo, read_mask, read_labels]


def picture(size: tuple[int, int] = (32, 24), mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode)


def one_line(error: pytest.ExceptionInfo[DataError], path: Path) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    assert message.endswith(".")
    return message


def huge_png(path: Path, width: int, height: int) -> None:
    """A valid header that claims these dimensions, and next to no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("read", READERS)
def test_a_missing_file_and_a_folder_are_named(read, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing") as error:
        read(tmp_path / "absent.jpg")
    one_line(error, tmp_path / "absent.jpg")
    with pytest.raises(DataError, match="a folder"):
        read(tmp_path)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("content", [b"", b"this is text\n" * 50, b"\xff\xd8\xff\xe0\x00\x10JFIF", bytes(500)])
def test_what_is_no_image_is_named(read, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "text.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read(path)
    one_line(error, path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_image_is_named(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"cut.{suffix}"
    picture((200, 150)).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError) as error:
        read_rgb(path)
    one_line(error, path)


def test_random_damage_never_escapes_as_another_exception(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for suffix in ("jpg", "png", "webp"):
        path = tmp_path / f"damaged.{suffix}"
        picture((60, 40)).save(path)
        sound = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            damaged = sound.copy()
            damaged[rng.integers(0, len(damaged), 6)] = rng.integers(0, 256, 6)
            path.write_bytes(damaged.tobytes())
            try:
                assert read_photo(path).ndim == 3
            except DataError as error:
                assert "\n" not in str(error)


def test_one_pixel_is_no_picture(tmp_path: Path) -> None:
    picture((1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(DataError, match="1x1"):
        read_rgb(tmp_path / "dot.png")


@pytest.mark.parametrize("side", [9000, 14_000, 60_000])
def test_huge_dimensions_are_refused_before_decoding(side: int, tmp_path: Path) -> None:
    huge_png(tmp_path / "bomb.png", side, side)
    with pytest.raises(DataError, match=r"64,000,000 pixels") as error:
        read_rgb(tmp_path / "bomb.png")
    one_line(error, tmp_path / "bomb.png")


def test_an_image_of_a_data_set_must_be_rgb(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA"):
        picture(mode=mode).save(tmp_path / "x.png")
        with pytest.raises(DataError, match=rf"mode {mode}.*RGB"):
            read_rgb(tmp_path / "x.png")
    picture(mode="CMYK").save(tmp_path / "x.jpg")
    with pytest.raises(DataError, match="mode CMYK"):
        read_rgb(tmp_path / "x.jpg")


def test_a_photo_may_have_any_mode_of_eight_bits(tmp_path: Path) -> None:
    for mode, suffix in (
        ("RGB", "jpg"),
        ("L", "png"),
        ("P", "png"),
        ("RGBA", "png"),
        ("LA", "png"),
        ("CMYK", "jpg"),
        ("1", "png"),
    ):
        picture(mode=mode).save(tmp_path / f"x.{suffix}")
        assert read_photo(tmp_path / f"x.{suffix}").shape == (32, 24, 3)


def test_a_photo_of_sixteen_bits_says_so(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="8-bit"):
        read_photo(tmp_path / "deep.png")


def test_transparency_becomes_white_not_black(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert (read_photo(tmp_path / "clear.png") == 255).all()


def test_a_photo_is_turned_upright_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    picture((32, 24)).save(tmp_path / "side.jpg", exif=exif)
    assert read_photo(tmp_path / "side.jpg").shape == (24, 32, 3)


def test_masks_are_split_at_128_in_gray_and_in_rgb(tmp_path: Path) -> None:
    gray = np.repeat(np.array([0, 127, 128, 255], np.uint8), 8)[None].repeat(32, axis=0)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(gray).convert("RGB").save(tmp_path / "rgb.png")
    for name in ("gray.png", "rgb.png"):
        assert read_mask(tmp_path / name)[0, ::8].tolist() == [False, False, True, True]
    picture(mode="P").save(tmp_path / "palette.png")
    with pytest.raises(DataError, match="mode P"):
        read_mask(tmp_path / "palette.png")


def test_labels_are_indices_and_never_colours(tmp_path: Path) -> None:
    parse = np.random.default_rng(0).integers(0, 20, (32, 24), dtype=np.uint8)
    image = Image.fromarray(parse)
    image.save(tmp_path / "gray.png")
    image.putpalette(list(range(60)))
    image.save(tmp_path / "palette.png")
    assert np.array_equal(read_labels(tmp_path / "gray.png"), parse)
    assert np.array_equal(read_labels(tmp_path / "palette.png"), parse)
    image.convert("RGB").save(tmp_path / "colours.png")
    with pytest.raises(DataError, match=r"mode RGB.*never convert"):
        read_labels(tmp_path / "colours.png")


def test_a_label_without_a_name_is_reported(tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 24), 20, np.uint8)).save(tmp_path / "parse.png")
    with pytest.raises(DataError, match="label 20, expected 0 to 19") as error:
        read_labels(tmp_path / "parse.png")
    one_line(error, tmp_path / "parse.png")


def test_the_size_comes_from_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    picture((64, 48)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    assert size_of(path) == (64, 48)


def test_no_message_repeats_pillows_paths(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"nonsense")
    with pytest.raises(DataError) as error:
        read_rgb(path)
    assert len(re.findall(re.escape(str(path)), str(error.value))) == 1
