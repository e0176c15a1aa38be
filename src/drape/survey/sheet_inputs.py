"""What a net is given, as pictures: the very tensors, caught where the trainer hands them over.

`diffusion_loss` is called as in training, with a net in whose place somebody takes notes.  Whatever the data, the
flips, the noise augmentation or the noising do to the inputs is therefore seen, right or wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from drape.conditioning import augmented_sizes
from drape.config import RunConfig
from drape.data.loader import Reader
from drape.data.reader import Setting
from drape.data.transforms import to_bytes
from drape.errors import DrapeError
from drape.nets.conditions import Conditions
from drape.survey.overlays import COMPUTED, dimmed, enlarged, outlined, skeleton
from drape.survey.sheet import Cell, Row, cell_size
from drape.training import loss
from drape.training.randomness import Draws, draw
from drape.training.sources import Micro, Source, open_reader

TIMES = (0.2, 0.5, 0.8)
"""Noise levels at which the sheet of a data set also shows x_t, beside the drawn one."""


class Given(NamedTuple):
    """The arguments of one call of the net."""

    x_t: Tensor
    log_snr: Tensor
    conditions: Conditions


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A net that the data are shown for.

    remarks   what was adapted to the data
    """

    name: str
    config: RunConfig
    remarks: tuple[str, ...] = ()


def given(config: RunConfig, micro: Micro) -> Given:
    """What the net is called with for this micro-batch.  Raises DataError as the trainer does."""
    calls: list[Given] = []

    def take_notes(x_t: Tensor, log_snr: Tensor, conditions: Conditions) -> Tensor:
        calls.append(Given(x_t, log_snr, conditions))
        return torch.zeros_like(x_t)

    with torch.no_grad():
        loss.diffusion_loss(take_notes, config, micro.batch, micro.draws)
    return calls[0]


class Feed:
    """The inputs of a stage for single pairs: each as an image of a run that keeps its conditions, with its draws."""

    def __init__(self, stage: Stage, root: Path, *, split: str, setting: Setting) -> None:
        self.stage, self.setting = stage, setting
        self.reader: Reader | None = None
        self.failure = ""
        self._numbers = (n for n in count() if not draw(stage.config, n, 1).drop[0])
        try:
            self.reader = open_reader(stage.config, root, setting=setting, split=split)
        except DrapeError as error:
            self.failure = f"{stage.name} cannot be trained on these data: {error}"

    def row(self, pair: tuple[str, str]) -> Row:
        """The inputs for a pair, or why there are none."""
        if self.reader is None:
            return self._failed(self.failure)
        config, index, number = self.stage.config, self.reader.ids.index(pair), next(self._numbers)
        source = Source(config=config, readers=[self.reader], cached=None, workers=0, divided=([index], []))
        try:
            micro = next(source.batches(number, [slice(0, 1)]))
            times = () if self.setting == "unpaired" else TIMES
            return input_row(self.stage, micro, 0, number, times=times, has_target=self.setting != "unpaired")
        except DrapeError as error:
            return self._failed(f"{self.stage.name} cannot be trained on this pair: {error}")

    def _failed(self, words: str) -> Row:
        notes = _about(self.stage)
        return Row(title=self.stage.name, notes=notes, cells=(), size=cell_size(*self.stage.config.resolution),
                   failure=words)  # fmt: skip


def input_row(
    stage: Stage, micro: Micro, place: int, number: int, *, times: Sequence[float] = (), has_target: bool = True
) -> Row:
    """The inputs of one image.

    place    in the micro-batch
    number   of the image in its run
    times    at which x_t is shown besides the drawn one
    """
    notes = (*_about(stage), f"as image {number:,} of a run{_changes(micro.draws, place)}",
             *(() if has_target else ("no target, so no x_t: nobody knows this person in this cloth",)))  # fmt: skip
    cells = input_cells(stage.config, micro, place, times=times, has_target=has_target)
    return Row(title=stage.name, notes=notes, cells=cells, size=cell_size(*stage.config.resolution))


def input_cells(
    config: RunConfig,
    micro: Micro,
    place: int,
    *,
    times: Sequence[float] = (),
    has_target: bool = True,
    outline: bool = False,
) -> tuple[Cell, ...]:
    """The tensors of one image: conditions, target and x_t.

    outline   draw the edge of the mask over the agnostic image
    """
    size = cell_size(*config.resolution)
    net = given(config, micro)
    levels = _levels(config, micro.draws, place)
    cells = [_image(name, getattr(net.conditions, name)[place], size, levels[name]) for name in ("cloth", "agnostic")]
    if outline and cells[1].picture is not None:
        mask = micro.batch.need("agnostic_mask")[place, 0].numpy() > 0.5
        cells[1] = replace(cells[1], picture=outlined(cells[1].picture, mask, COMPUTED))
    if net.conditions.low_res is not None and has_target:
        cells.append(_image("low_res", net.conditions.low_res[place], size, levels["low_res"]))
    elif net.conditions.low_res is not None:
        cells.append(Cell(title="low_res", absent="made by the stage before: there is no target to make it from"))
    person = micro.batch.need("person")[place]
    cells.append(_pose("pose", net.conditions.pose[place], _pale(person, size) if has_target else None, size))
    if (net.conditions.cloth_pose[place] != 0).any():
        ground = _pale(net.conditions.cloth[place], size)
        cells.append(_pose("cloth_pose", net.conditions.cloth_pose[place], ground, size))
    if not has_target:
        return tuple(cells)
    cells.append(_image("target x0", person, size, ("not given to the net",)))
    cells.append(_noisy(net, place, size, float(micro.draws.t[place]), " (drawn)"))
    for t in times:
        at_t = replace(micro.draws, t=torch.full_like(micro.draws.t, t))
        cells.append(_noisy(given(config, micro._replace(draws=at_t)), place, size, t))
    return tuple(cells)


def _about(stage: Stage) -> tuple[str, ...]:
    height, width = stage.config.resolution
    diffusion = stage.config.diffusion
    return (f"net input {height}x{width}", f"predicts {diffusion.target}, {diffusion.schedule} schedule",
            *stage.remarks)  # fmt: skip


def _changes(draws: Draws, place: int) -> str:
    """What was drawn for an image, in words."""
    words = ["flipped"] * bool(draws.flip[place]) + ["all conditions dropped"] * bool(draws.drop[place])
    return f": {', '.join(words)}" if words else ": not flipped"


def _levels(config: RunConfig, draws: Draws, place: int) -> dict[str, tuple[str, ...]]:
    """The noise-augmentation level of each conditioning image, in words."""
    if draws.drop[place]:
        return dict.fromkeys(augmented_sizes(config), ("dropped: all 0",))
    levels = dict(zip(augmented_sizes(config), draws.aug_level[place].tolist(), strict=True))
    return {name: (f"noise level {level:.2f}" if draws.aug_eps else "noise level 0 (clean)",)
            for name, level in levels.items()}  # fmt: skip


def _image(title: str, image: Tensor, size: tuple[int, int], words: tuple[str, ...]) -> Cell:
    return Cell(title=title, picture=_shown(image, size), lines=(_shape(image), _range(image), *words))


def _noisy(net: Given, place: int, size: tuple[int, int], t: float, remark: str = "") -> Cell:
    words = (f"log-SNR {float(net.log_snr[place]):.2f}",)
    return _image(f"x_t, t {t:.2f}{remark}", net.x_t[place], size, words)


def _pose(title: str, pose: Tensor, ground: Image.Image | None, size: tuple[int, int]) -> Cell:
    """Joints over the picture they belong to, or over gray; the null pose is a blank."""
    visible = int((pose[:, 2] > 0).sum())
    blank = Image.new("RGB", size, (140, 138, 134))
    words = (_shape(pose), f"{visible} joints" if visible else "all 0: the null pose")
    return Cell(title=title, picture=skeleton(ground or blank, pose.numpy()) if visible else blank, lines=words)


def _pale(image: Tensor, size: tuple[int, int]) -> Image.Image:
    return dimmed(_shown(image, size))


def _shown(image: Tensor, size: tuple[int, int]) -> Image.Image:
    """[-1, 1] as a picture, what lies outside clipped."""
    rgb = to_bytes(image.detach().cpu()).permute(1, 2, 0).numpy()
    return enlarged(np.ascontiguousarray(rgb), size)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _range(tensor: Tensor) -> str:
    return f"{float(tensor.min()):.2f} to {float(tensor.max()):.2f}"
