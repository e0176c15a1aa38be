"""The bytes of a packed sample: the members that a shard, a plain tar in the WebDataset layout, holds of it.

Images are PNG, so that any tool looks into a shard, and their pixels are stored, not compressed: a PNG of level 0
leaves a decoder nothing to do but copy.  Samples per second of processor time on one core at 128x96, person, cloth and
mask decoded, batched and turned into floats, while the core was shared and once while it was idle, and bytes of a
sample in its tar, of mannequins:

level 0, no filter          1,110   2,070   91 kB
level 1, rows subtracted      690     860   35 kB
level 6, rows subtracted      700           32 kB

Raw arrays (.npy) would be hardly faster, and no viewer shows them.  Bytes of level 0 depend on no library: they are
the same everywhere and for ever, while compressed ones are those of one release of zlib.  Every decoder gives the same
pixels.  `agnostic` is not stored: it is made from the image before the change and the mask  [drape.data.compact].
"""

import json
import struct
import tarfile
import zlib
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from drape.data.compact import Compact, Words, planes
from drape.data.parse_labels import PALETTE
from drape.data.sample import ClothKind
from drape.data.transforms import Size
from drape.shapes import NUM_JOINTS

MEMBERS: dict[str, str] = {
    "person": "person.png",
    "cloth": "cloth.png",
    "original": "original.png",
    "agnostic_mask": "agnostic_mask.png",
    "pose": "pose.npy",
    "cloth_pose": "cloth_pose.npy",
    "cloth_mask": "cloth_mask.png",
    "parse": "parse.png",
    "densepose": "densepose.png",
    "warp": "warp.npy",
}
"""Name of each stored array behind the key of its sample, in the order of a shard: what a net is trained on first."""
WORDS = "json"
"""The last member: ids, source and licence, for readers that have no index."""

BLOCK = 512
RECORD = 20 * BLOCK
"""A tar is padded to whole records, as all tar programs do."""
MTIME = 315_532_800
"""1980-01-01, the time of change of every member; tar programs find 1970 implausible."""

_GRAY, _RGB, _PALETTE = 0, 2, 3
_STORED = 65_535  # most bytes of a block that deflate does not compress
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def member_names(arrays: Sequence[str], cloth_kind: ClothKind) -> dict[str, str]:
    """By array, in the order of the shard, the member it is stored as.  The pose of a flat cloth is nobody's."""
    return {
        name: member
        for name, member in MEMBERS.items()
        if name in arrays and (name, cloth_kind) != ("cloth_pose", "flat")
    }


def png_settings(level: int) -> str:
    """What the bytes of a PNG depend on besides its pixels."""
    return "stored" if level == 0 else f"level {level}, zlib {zlib.ZLIB_RUNTIME_VERSION}"


def encode(compact: Compact, names: Sequence[str], level: int) -> list[bytes]:
    """Contents of the members of the arrays `names` of a sample, and last its words.

    level   of compression, 0 to 9
    """
    return [*(_encoded(name, compact.arrays[name], level) for name in names), _words(compact.words)]


def decode(name: str, content: bytes, size: Size) -> Tensor:
    """The array `name` as a reader of folders gives it.

    size   (height, width) it must have
    Raises ValueError for anything else than such an array.
    """
    if name in ("pose", "cloth_pose"):
        return torch.from_numpy(_from_npy(content, "<f4", (NUM_JOINTS, 3)))
    if name == "warp":
        return torch.from_numpy(np.array(_from_npy(content, "<f2", (*size, 2)).transpose(2, 0, 1)))
    if name == "parse":
        return torch.from_numpy(np.array(_from_png(content, size, "P")))
    if name.endswith("mask"):
        return torch.from_numpy(_from_png(content, size, "L")[None] & 1)
    return planes(_from_png(content, size, "RGB"))


def largest(size: Size) -> int:
    """More bytes than any member of a sample of this (height, width) has."""
    return 8 * size[0] * size[1] + 1_000_000


def tar_member(name: str, content: bytes) -> tuple[bytes, bytes]:
    """(header, content padded to whole blocks) of one file in a tar."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(content), MTIME
    return entry.tobuf(tarfile.USTAR_FORMAT), content + bytes(-len(content) % BLOCK)


def tar_end(written: int) -> bytes:
    """What follows the last member of a tar of which so many bytes are written."""
    return bytes(2 * BLOCK + -(written + 2 * BLOCK) % RECORD)


def png(pixels: UInt8[ndarray, "h w *c"], level: int, *, labels: bool = False) -> bytes:
    """A PNG of gray or RGB pixels, or of labels shown in the standard palette.

    level   0 stores the pixels; above, each row is subtracted from the one below and the rest compressed
    """
    height, width = pixels.shape[:2]
    kind = _PALETTE if labels else _GRAY if pixels.ndim == 2 else _RGB
    rows = np.zeros((height, pixels[0].size + 1), np.uint8)  # before each row the number of its filter
    rows[:, 1:] = pixels.reshape(height, -1)
    if level:
        rows[1:, 1:] -= pixels.reshape(height, -1)[:-1]
        rows[:, 0] = 2
    content = zlib.compress(rows.tobytes(), level) if level else _stored(rows.tobytes())
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    palette = _chunk(b"PLTE", PALETTE.tobytes()) if labels else b""
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + palette + _chunk(b"IDAT", content) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _stored(raw: bytes) -> bytes:
    """A zlib stream of blocks that are not compressed.  Written here since libraries cut the blocks differently."""
    starts = range(0, len(raw), _STORED)
    blocks = (raw[start : start + _STORED] for start in starts)
    body = b"".join(
        struct.pack("<BHH", start == starts[-1], len(block), len(block) ^ 0xFFFF) + block
        for start, block in zip(starts, blocks, strict=True)
    )
    return b"\x78\x01" + body + struct.pack(">I", zlib.adler32(raw))


def _encoded(name: str, array: Tensor, level: int) -> bytes:
    values = array.numpy()
    if name in ("pose", "cloth_pose"):
        return _npy(values, "<f4")
    if name == "warp":
        return _npy(np.ascontiguousarray(values.transpose(1, 2, 0)), "<f2")
    if name == "parse":
        return png(values, level, labels=True)
    if name.endswith("mask"):
        return png(values[0] * np.uint8(255), level)
    return png(np.ascontiguousarray(values.transpose(1, 2, 0)), level)


def _words(words: Words) -> bytes:
    return f"{json.dumps(words._asdict())}\n".encode()


def _npy(values: ndarray, descr: str) -> bytes:
    return _npy_header(descr, values.shape) + values.astype(descr).tobytes()


def _npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """The header of numpy's format 1.0, as numpy writes it."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    length = -(-(10 + len(text) + 1) // 64) * 64 - 10
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", length) + text.ljust(length - 1).encode() + b"\n"


def _from_npy(content: bytes, descr: str, shape: tuple[int, ...]) -> ndarray:
    header = _npy_header(descr, shape)
    values = np.dtype(descr)
    if not content.startswith(header) or len(content) != len(header) + int(np.prod(shape)) * values.itemsize:
        raise ValueError(f"no {descr} array of shape {shape}")
    return np.frombuffer(content, values, offset=len(header)).reshape(shape).copy()


def _from_png(content: bytes, size: Size, mode: str) -> UInt8[ndarray, "h w *c"]:
    height, width = size
    if content[16:24] != struct.pack(">II", width, height):  # before a decoder believes it
        raise ValueError(f"no PNG of {height}x{width}")
    try:
        with Image.open(BytesIO(content), formats=("PNG",)) as image:
            if image.mode != mode:
                raise ValueError(f"a PNG of mode {image.mode}, expected {mode}")
            return np.asarray(image)
    except _DECODER_ERRORS as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
