"""The sheet of a data set: which pairs, which nets, and the words and colour keys around them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from drape.checkpoint import CONFIG_FILE
from drape.config import OtherVersionError, RunConfig, from_stored, override, read_config, unreadable
from drape.data.images import size_of
from drape.data.parse_labels import NAMES, PALETTE
from drape.data.reader import FolderReader, Setting
from drape.data.transforms import ASPECT_TOLERANCE, Size
from drape.errors import ConfigError, DataError
from drape.presets import mini_64, preset, small_128, tiny
from drape.survey.overlays import CLOTH, COMPUTED, LIMBS, SHIPPED
from drape.survey.sheet import Head, Key, Row, draw_sheet
from drape.survey.sheet_inputs import Feed, Stage
from drape.survey.sheet_pairs import WHERE_THERE_IS, Look, cells_of, is_dresscode, open_pairs

NOTES = (
    "A net's inputs are the tensors that drape's trainer hands over, each pair with the draws of one image of a run: "
    "its flip, its noise levels, its noise. Images whose conditions are all dropped (condition_drop) are passed over. "
    "Left and right are the person's own.",
)


MOST_PAIRS = 50
"""On one sheet, which is then some 50,000 pixels high."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The picture, who is on it, and of how many."""

    picture: Image.Image
    pairs: tuple[tuple[str, str], ...]
    total: int
    source: str
    licence: str
    stages: tuple[str, ...]


def show_set(
    root: Path,
    *,
    split: str = "train",
    setting: Setting = "paired",
    ids: Sequence[str] = (),
    people: int = 6,
    stages: Sequence[Stage] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Shown:
    """The sheet of some pairs.

    ids        people to show; without any, `people` of them spread over the split
    stages     nets whose inputs to show; without any, small ones that fit the pictures
    progress   called with (done, total) pairs
    Raises DataError for a folder or list that cannot be read, an unknown person, and for a file that is damaged,
    ConfigError for more than MOST_PAIRS.
    """
    reader = open_pairs(root, split=split, setting=setting)
    pairs = _chosen(reader, ids, people)
    others = _counterfactuals(root, split)
    looks = [Look(reader, *pair, others.get(pair[0])) for pair in pairs]
    kinds = tuple(kind for kind in WHERE_THERE_IS if any(look.find(kind) for look in looks))
    nets = tuple(stages) or default_stages(looks, root, split)
    feeds = [Feed(stage, root, split=split, setting=setting) for stage in nets]
    blocks, colours = [], _Colours()
    for number, look in enumerate(looks):
        files = Row(title=look.person_id, notes=_about(look), cells=cells_of(look, kinds), size=look.cell)
        blocks.append([files, *(feed.row(pairs[number]) for feed in feeds if not (number and feed.failure))])
        colours.add(look)
        look.forget()
        if progress:
            progress(number + 1, len(looks))
    head = _head(root, split, setting, reader, looks, nets, colours.keys(), named=bool(ids))
    return Shown(picture=draw_sheet(head, blocks), pairs=tuple(pairs), total=len(reader.ids), source=reader.source,
                 licence=reader.licence, stages=tuple(stage.name for stage in nets))  # fmt: skip


def stage_of(name: str, settings: Sequence[str] = ()) -> Stage:
    """The net of a preset's name, a .json config or the folder of a run, with settings such as "data.pose=null".

    Raises ConfigError for an unknown name, and for a file that holds no config.
    """
    path = Path(name)
    if name.endswith(".json"):
        config = read_config(path)
    elif (path / CONFIG_FILE).is_file():
        config = _config_of_run(path)
    elif path.is_dir():
        raise ConfigError(f"{path} holds no {CONFIG_FILE}, so it is no run. Give the folder of a run, or a preset.")
    else:
        config = preset(name)
    return Stage(name=config.name, config=override(config, settings))


def default_stages(looks: Sequence[Look], root: Path, split: str) -> tuple[Stage, ...]:
    """The presets for small pictures at sizes that fit these, reading what there is; none where no picture is."""
    sizes = [(look.size, _cloth_size(look)) for look in looks if look.size]
    if not sizes:
        return ()
    size, cloth_size = sizes[0]
    wanted = [make() for make in (mini_64, small_128) if make().resolution[0] <= size[0]] or [tiny()]
    return tuple(_adapted(config, size, cloth_size or size, looks, root, split) for config in wanted)


def _adapted(config: RunConfig, size: Size, cloth_size: Size, looks: Sequence[Look], root: Path, split: str) -> Stage:
    """The preset at a size that fits the pictures, and without what these data lack."""
    data, remarks = replace(config.data, settings=("paired",)), []
    if is_dresscode(root, split):
        data = replace(data, layout="dresscode")
    have = {kind: any(look.find(kind) for look in looks) for kind in ("joints", "parse", "shipped_mask",
                                                                       "shipped_agnostic")}  # fmt: skip
    if not have["joints"]:
        data = replace(data, pose="null")
        remarks.append("data.pose=null: there are no joints")
    if not (have["joints"] and have["parse"]) and (have["shipped_mask"] or have["shipped_agnostic"]):
        data = replace(data, mask="shipped")
        remarks.append("data.mask=shipped")
    height = config.resolution[0]
    resolution = _fitting(size, height, config.net.stride)
    cloth = _fitting(cloth_size, height, config.net.cloth_stride)
    if resolution is None or cloth is None:
        data, resolution, cloth = replace(data, fit="square"), (height, height), (height, height)
        remarks.append("data.fit=square: the shape of the pictures fits no net")
    return Stage(
        name=config.name,
        config=replace(config, data=data, resolution=resolution, cloth_resolution=cloth),
        remarks=tuple(remarks),
    )


def _fitting(size: Size, height: int, stride: int) -> Size | None:
    """(height, width) of pictures of this size at a net's height; None where no multiple of its stride comes near."""
    width = max(1, round(height * size[1] / size[0] / stride)) * stride
    squashed = abs((size[0] / size[1]) / (height / width) - 1)
    return (height, width) if squashed <= ASPECT_TOLERANCE else None


def _cloth_size(look: Look) -> Size | None:
    path = look.find("cloth")
    return None if path is None else size_of(path)


def _config_of_run(folder: Path) -> RunConfig:
    path = folder / CONFIG_FILE
    try:
        return from_stored(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no readable config ({error}). Restore it, or name a preset.") from error
    except OtherVersionError as error:
        raise ConfigError(f"{unreadable(path, error)}. Use that version, or name a preset.") from error


@dataclass(frozen=True)
class _Colours:
    """The colours that occur on the sheet: labels of the parse, limbs and outlines by name."""

    labels: set[int] = field(default_factory=set)
    limbs: dict[str, str] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)

    def add(self, look: Look) -> None:
        if look.parse is not None:
            self.labels.update(np.unique(look.parse).tolist())
        if look.pose is not None:
            self.limbs.update({name: colour for name, (colour, _) in LIMBS.items()})
        for name in look.masks:
            self.lines[f"agnostic mask, {name}"] = COMPUTED if name == "computed" else SHIPPED
        if look.cloth_mask is not None:
            self.lines["cloth mask"] = CLOTH

    def keys(self) -> tuple[Key, ...]:
        parse = tuple((f"{label}  {NAMES[label]}", f"#{bytes(PALETTE[label]).hex()}") for label in sorted(self.labels))
        keys = (("parse (CIHP)", parse), ("pose", tuple(self.limbs.items())), ("outlines", tuple(self.lines.items())))
        return tuple(Key(title=title, swatches=swatches) for title, swatches in keys if swatches)


def _chosen(reader: FolderReader, ids: Sequence[str], people: int) -> list[tuple[str, str]]:
    """The pairs of these people, else so many spread evenly over the split.

    Raises DataError for an unknown one, ConfigError for more than a sheet holds.
    """
    names = [person for person, _ in reader.ids]
    if max(len(set(ids)), 0 if ids else people) > MOST_PAIRS:
        raise ConfigError(
            f"{len(set(ids)) or people} pairs are more than one sheet shows. Ask for {MOST_PAIRS} at most."
        )
    if ids:
        return [reader.ids[reader.folders.index_of(name, names)] for name in dict.fromkeys(ids)]
    count = min(people, len(reader.ids))
    return [reader.ids[len(reader.ids) * number // count] for number in range(count)]


def _counterfactuals(root: Path, split: str) -> dict[str, str]:
    """In which cloth each person's counterfactual is; empty where nobody says."""
    try:
        return dict(open_pairs(root, split=split, setting="counterfactual").ids)
    except (ConfigError, DataError):
        return {}


def _about(look: Look) -> tuple[str, ...]:
    """The notes of a pair."""
    own = look.person_id == look.cloth_id
    cloth = "in their own cloth" if own else f"in the cloth of {look.cloth_id}"
    return (cloth, "files as they are")


def _head(
    root: Path,
    split: str,
    setting: Setting,
    reader: FolderReader,
    looks: Sequence[Look],
    stages: Sequence[Stage],
    keys: tuple[Key, ...],
    *,
    named: bool,
) -> Head:
    shown = f"{len(looks)} shown" + ("" if named or len(looks) == len(reader.ids) else ", spread over the split")
    sizes = _sizes([look.size for look in looks]), _sizes([_cloth_size(look) for look in looks])
    nets = [f"net {stage.name} {stage.config.resolution[0]}x{stage.config.resolution[1]}" for stage in stages]
    count = f"split {split}: {len(reader.ids):,} {setting} pairs"
    facts = (
        (f"source: {reader.source}", f"licence: {reader.licence}", count, shown),
        (f"people {sizes[0]} (height x width)", f"clothes {sizes[1]}", *nets),
    )
    return Head(title=root.resolve().name, facts=facts, keys=keys, notes=NOTES)


def _sizes(sizes: Sequence[Size | None]) -> str:
    known = sorted({f"{height}x{width}" for height, width in filter(None, sizes)})
    return ", ".join(known[:3]) + (f" and {len(known) - 3} more sizes" if len(known) > 3 else "") or "of no known size"
