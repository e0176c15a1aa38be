"""The settings of a ParallelUNet: what the paper says, and a named choice for each thing it does not say."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from drape.errors import ConfigError

FilmAt = Literal["input", "mid"]
Norm = Literal["group", "layer"]
PoseMaps = Literal["none", "joints", "limbs"]
Resample = Literal["conv", "light"]
Shortcut = Literal["conv", "identity"]
Skips = Literal["concat", "concat-scaled", "add-scaled"]
ClothSees = Literal["all", "no-time", "cloth"]
Places = Literal["none", "image", "body"]
AttendIn = Literal["every", "last"]
Stage = Literal["encoder", "decoder"]

POOL_HEAD_DIM = 64
"""Width of a head of the attention that pools the joints."""


class BlockPlace(NamedTuple):
    """Which block of a stream: `block` counts from 0 within its stage and level."""

    stage: Stage
    level: int
    block: int


@dataclass(frozen=True, kw_only=True)
class ParallelUNetConfig:
    """Levels are numbered from the finest, 0; every tuple of counts has one entry per level.  [Zhu et al. 2023, A.1]

    channels                width of the person stream
    repeats                 blocks per level of the person stream, the same in encoder and decoder
    cloth_channels          width of the cloth stream
    cloth_encoder_repeats   blocks per level; 0 from the level on where the stream stops
    cloth_decoder_repeats   blocks per level; 0 below the level where the stream stops (the paper truncates it after the
                            last block that feeds a cross-attention)
    self_attention          levels whose person blocks have self-attention (encoder and decoder)
    encoder_cross           (person level, cloth level) pairs: person blocks of that level read cloth blocks of this
    decoder_cross           the same for the decoder; a cloth level without decoder blocks offers its encoder blocks
    attend_in               attention after `every` block of a level (paper), or only the `last`: a third less work in a
                            small net, whose convolutions are cheap
    head_dim                the paper does not give it; 128 gives the 8 heads at 1024 channels of Imagen
    embedding_dim           width of the conditioning vector and the pose tokens; not given, 512 meets both parameter
                            counts (reference: 1.13 B and 1.06 B)
    film_at                 `input`: before the residual block, as the figure draws it; `mid`: between the convolutions,
                            after the second norm (ADM, Imagen)
    skips                   `concat`: every encoder block to its decoder block (ADM; meets the parameter counts);
                            `concat-scaled`: the same, times 1/sqrt(2) (Imagen: faster convergence);
                            `add-scaled`: (x + skip) / sqrt(2), half the work in the decoder
    shortcut                `conv`: a 1x1 convolution always, as the paper says; `identity`: only where widths differ
    resample                `conv`: strided 3x3 down, nearest and 3x3 up; the paper does not say, Imagen does, and it
                            meets the parameter counts; `light`: 2x2 down, 1x1 and nearest up
    norm                    `group` (paper), or `layer`, per pixel: no statistics over the image, and faster on a CPU
    patch                   pixels a side moved into channels by the stem; the paper's 1 costs most at the finest level
    cloth_sees              `all`: the cloth stream is told the noise level, as in the paper; `no-time`: all but that,
                            so its keys and values are computed once per image; `cloth`: only what belongs to the cloth
                            (its joints and its augmentation), so they are computed once per cloth, whoever wears it
    places                  position encodings added to queries and keys of cross-attention: `none` (paper), `image`, or
                            `body`, places in the frame of shoulders and hips (nets.body), the shortest way to a warp
    pose_maps               joints (and limbs) drawn at the stem's resolution beside the person image; paper: `none`
    qk_norm                 layer norm of each head's queries and keys
    low_res                 whether the result of the stage before is an input: the 256 net
    """

    channels: tuple[int, ...]
    repeats: tuple[int, ...]
    cloth_channels: tuple[int, ...]
    cloth_encoder_repeats: tuple[int, ...]
    cloth_decoder_repeats: tuple[int, ...]
    self_attention: tuple[int, ...]
    encoder_cross: tuple[tuple[int, int], ...]
    decoder_cross: tuple[tuple[int, int], ...]
    attend_in: AttendIn = "every"
    head_dim: int = 128
    embedding_dim: int = 512
    film_at: FilmAt = "input"
    skips: Skips = "concat"
    shortcut: Shortcut = "conv"
    resample: Resample = "conv"
    norm: Norm = "group"
    patch: Literal[1, 2, 4] = 1
    cloth_sees: ClothSees = "all"
    places: Places = "none"
    pose_maps: PoseMaps = "none"
    qk_norm: bool = False
    low_res: bool = False

    def __post_init__(self) -> None:
        self._check_lengths()
        self._check_embedding()
        self._check_attention()
        self._check_cloth_stream()

    @property
    def num_levels(self) -> int:
        return len(self.channels)

    @property
    def stride(self) -> int:
        """What height and width of the person must be divisible by."""
        return self.patch * 2 ** (self.num_levels - 1)

    @property
    def cloth_levels(self) -> int:
        """Levels that the cloth stream reaches."""
        return sum(n > 0 for n in self.cloth_encoder_repeats)

    @property
    def cloth_stride(self) -> int:
        """What height and width of the cloth must be divisible by."""
        return self.patch * 2 ** (self.cloth_levels - 1)

    @property
    def num_noise_aug(self) -> int:
        """Columns of Conditions.noise_aug: agnostic, cloth[, low_res]."""
        return 3 if self.low_res else 2

    @property
    def caches_cloth(self) -> bool:
        """Whether cloth features stay the same over the steps of a sampler."""
        return self.cloth_sees != "all"

    def person_blocks(self, stage: Stage) -> list[BlockPlace]:
        """Places of the person blocks of `stage`, in the order they run."""
        return _run_order(stage, self.repeats)

    def cloth_blocks(self, stage: Stage) -> list[BlockPlace]:
        """Places of the cloth blocks of `stage`, in the order they run."""
        return _run_order(stage, self.cloth_encoder_repeats if stage == "encoder" else self.cloth_decoder_repeats)

    def attends(self, person: BlockPlace) -> bool:
        """Whether this person block may have attention at all."""
        return self.attend_in == "every" or person.block == self.repeats[person.level] - 1

    def cloth_source(self, person: BlockPlace) -> BlockPlace | None:
        """The cloth block that this person block reads, if it reads one.

        Block b reads block b: the paper's figure has the two streams side by side and says no more.  Where the
        person stream has more blocks (256 net: 7 against 6), the cloth's last one serves the rest; where only the last
        person block of a level reads, it reads the last.
        """
        level = dict(self.encoder_cross if person.stage == "encoder" else self.decoder_cross).get(person.level)
        if level is None or not self.attends(person):
            return None
        stage: Stage = "decoder" if person.stage == "decoder" and self.cloth_decoder_repeats[level] else "encoder"
        last = sum(place.level == level for place in self.cloth_blocks(stage)) - 1
        return BlockPlace(stage, level, last if self.attend_in == "last" else min(person.block, last))

    def _check_lengths(self) -> None:
        for name in ("repeats", "cloth_channels", "cloth_encoder_repeats", "cloth_decoder_repeats"):
            found = len(getattr(self, name))
            if found != self.num_levels:
                raise ConfigError(f"{name} has {found} entries but channels has {self.num_levels}. Give one per level.")
        if min(self.repeats, default=0) < 1:
            raise ConfigError(f"repeats={self.repeats}: every level of the person stream needs at least 1 block.")
        if 0 in self.cloth_encoder_repeats[: self.cloth_levels] or self.cloth_levels == 0:
            raise ConfigError(
                f"cloth_encoder_repeats={self.cloth_encoder_repeats}: 0 is allowed from some level on. Fill the gap."
            )
        for name in ("channels", "cloth_channels"):
            bad = [c for c in getattr(self, name) if c < 4 or (self.norm == "group" and c % min(32, c // 4))]
            if bad:
                raise ConfigError(
                    f"{name}: {bad[0]} cannot be split into {min(32, bad[0] // 4)} groups. Use multiples of 32."
                )

    def _check_embedding(self) -> None:
        """The joints are pooled by attention with a head per 64 numbers, one at least.  [nets.embeddings]"""
        if self.head_dim < 1:
            raise ConfigError(f"head_dim is {self.head_dim}, expected at least 1. Use 64, say.")
        dim = self.embedding_dim
        if dim < 1 or dim % max(1, dim // POOL_HEAD_DIM):
            raise ConfigError(
                f"embedding_dim is {dim}, which {max(1, dim // POOL_HEAD_DIM)} heads cannot share. "
                f"Use a multiple of {POOL_HEAD_DIM}, such as {max(1, round(dim / POOL_HEAD_DIM)) * POOL_HEAD_DIM}."
            )

    def _check_attention(self) -> None:
        pairs = self.encoder_cross + self.decoder_cross
        if not pairs:
            raise ConfigError(
                "no cross-attention: the cloth would never reach the person. Set encoder_cross or decoder_cross."
            )
        for name in ("encoder_cross", "decoder_cross"):
            levels = [person_level for person_level, _ in getattr(self, name)]
            if len(set(levels)) < len(levels):
                raise ConfigError(f"{name}={getattr(self, name)}: a person level reads one cloth level. Remove a pair.")
        for person_level, cloth_level in pairs:
            if not (0 <= person_level < self.num_levels and 0 <= cloth_level < self.cloth_levels):
                raise ConfigError(
                    f"cross-attention ({person_level}, {cloth_level}) names a level that does not exist; the person "
                    f"stream has {self.num_levels}, the cloth stream reaches {self.cloth_levels}. Count from 0."
                )
        for level in {*self.self_attention, *(p for p, _ in pairs)}:
            if not 0 <= level < self.num_levels:
                raise ConfigError(f"self_attention names level {level}; expected 0 to {self.num_levels - 1}.")
            if self.channels[level] % self.head_dim:
                raise ConfigError(
                    f"attention at level {level}: {self.channels[level]} channels are not a multiple of "
                    f"head_dim={self.head_dim}. Set head_dim to a divisor."
                )

    def _check_cloth_stream(self) -> None:
        encoder, decoder = self.cloth_encoder_repeats, self.cloth_decoder_repeats
        active = [level for level, n in enumerate(decoder) if n]
        if active and active != list(range(active[0], self.cloth_levels)):
            raise ConfigError(
                f"cloth_decoder_repeats={decoder}: it starts at level {self.cloth_levels - 1}, without gaps."
            )
        for level in active:
            if decoder[level] != encoder[level]:
                raise ConfigError(
                    f"cloth_decoder_repeats[{level}]={decoder[level]} but its encoder has {encoder[level]}; each "
                    "decoder block takes one skip. Make them equal."
                )
        last = (self.cloth_blocks("encoder") + self.cloth_blocks("decoder"))[-1]
        readers = self.person_blocks("encoder") + self.person_blocks("decoder")
        if last not in map(self.cloth_source, readers):
            raise ConfigError(
                f"the last cloth block ({last.stage}, level {last.level}, block {last.block}) feeds no cross-"
                "attention: weights without gradient. Stop the cloth stream earlier, or let a person level read it."
            )


def _run_order(stage: Stage, repeats: tuple[int, ...]) -> list[BlockPlace]:
    """Encoder from the finest level down, decoder from the deepest up."""
    levels = range(len(repeats)) if stage == "encoder" else reversed(range(len(repeats)))
    return [BlockPlace(stage, level, block) for level in levels for block in range(repeats[level])]
