"""`drape data pack`: a set of pairs, resized once, as tar shards with an index."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from drape.cli._output import refuse_inside
from drape.cli._progress import bar
from drape.cli.command import at_least, call, parse_size
from drape.errors import ConfigError, DataError

if TYPE_CHECKING:
    from drape.data.exclude import Excluded
    from drape.data.reader import FolderReader, Setting
    from drape.settings import DataConfig

EXAMPLES = """
drape data pack people packed --preset mini-64 --workers 4
drape data pack zalando-hd-resized packed --size 128x96 --split train --split test
drape data pack people packed --size 128x96 --setting paired --setting counterfactual
drape data pack own-pairs packed --size 256x192 --set data.pose=null --set data.mask=shipped --compress 6
drape data pack people packed --preset mini-64 --exclude exclude.txt
drape data pack packed --check
"""

SETTINGS = ("paired", "unpaired", "counterfactual")
ANY = "mini-64"
"""The preset whose settings of the data count where --size is given instead of one."""


def run(argv: list[str]) -> int:
    """Run the command on its arguments."""
    return call(_pack, argv, "drape data pack", EXAMPLES)


def _pack(
    data: Annotated[str, typer.Argument(metavar="DIR", help="Folder in the VITON-HD or DressCode layout.")],
    out: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="Folder to write; the same command continues an unfinished one."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Pack what this preset reads, at its resolution.")] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH to resize to, instead of a preset's.")] = None,
    cloth_size: Annotated[str | None, typer.Option(help="The same for the clothes, where theirs is another.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, such as data.pose=null.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="train (unless given), test ...; repeatable.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option(help="paired, unpaired or counterfactual; the preset's; repeatable.")
    ] = None,
    fields: Annotated[str | None, typer.Option(help="Only these, NAME,NAME ...; everything that is there.")] = None,
    exclude: Annotated[
        Path | None, typer.Option(help="File of people, or of pairs PERSON CLOTH, to leave out; one to a line.")
    ] = None,
    shard_size: Annotated[str, typer.Option(help="Most bytes of a shard.")] = "64MB",
    compress: Annotated[int, typer.Option(help="0 to 9: a third of the bytes, at half the speed.")] = 0,
    workers: Annotated[int, typer.Option(callback=at_least(0), help="Processes; the bytes do not depend on it.")] = 2,
    check: Annotated[bool, typer.Option("--check", help="Write nothing: DIR is packed, read every shard.")] = False,
) -> int:
    """Resize a data set once and write it as shards that load many times faster, from a folder or any address."""
    if check:
        if out is not None:
            raise ConfigError(f"--check reads one folder that is packed, but {out} is named too. Leave one out.")
        return _check(data)
    if out is None:
        raise ConfigError("OUT is missing. Name a folder for the shards, or read packed ones again with --check.")
    refuse_inside(out, Path(data))
    from drape.data.exclude import read_excluded
    from drape.data.shard_writer import Packing, pack
    from drape.training.memory import parse_bytes

    packing = Packing(shard_bytes=parse_bytes(shard_size), level=compress, workers=workers)
    config, shape, cloth_shape = _form(preset, size, cloth_size, set_ or [])
    names = None if fields is None else tuple(name.strip() for name in fields.split(","))
    given = _Given(data, config, (shape, cloth_shape), names, None if exclude is None else read_excluded(exclude))
    readers = [
        given.reader(each, name)
        for name in dict.fromkeys(split or ["train"])
        for each in dict.fromkeys(setting or config.settings)
    ]
    given.leave_out(readers)
    started = time.monotonic()
    with bar("samples") as on_sample:
        packed = pack(readers, out, packing, on_sample)
    seconds = max(time.monotonic() - started, 1e-9)
    made = packed.samples - packed.kept
    speed = f"{made} packed now, {made / seconds:.1f} per second" if made else "all were there, their digests agree"
    print(f"{packed.samples} samples in {packed.shards} shards, {packed.bytes / 1e6:,.1f} MB; {speed}")
    print(out)
    return 0


def _form(
    preset: str | None, size: str | None, cloth_size: str | None, settings: list[str]
) -> tuple["DataConfig", tuple[int, int], tuple[int, int]]:
    """(settings of the data, size of the people, size of the clothes)."""
    from drape.config import override
    from drape.presets import preset as preset_by_name

    if (preset is None) == (size is None):
        found = "neither --preset nor --size is" if preset is None else "both --preset and --size are"
        raise ConfigError(f"{found} given, expected one of them. Add --preset mini-64 or --size 128x96, say.")
    if preset is not None:
        if cloth_size is not None:
            raise ConfigError("--cloth-size belongs to --size. Leave it out, or give --size instead of --preset.")
        config = override(preset_by_name(preset), settings)
        return config.data, config.resolution, config.cloth_size
    wrong = [each for each in settings if not each.strip().startswith("data.")]
    if wrong:
        raise ConfigError(f"--set {wrong[0]} says nothing of the data. Only data.KEY=VALUE does, with --size.")
    shape = parse_size(size or "")
    base = override(preset_by_name(ANY), ["resolution=[64,64]", 'data.settings=["paired"]', *settings])
    return base.data, shape, parse_size(cloth_size) if cloth_size else shape


@dataclass(frozen=True)
class _Given:
    """What is packed: a folder, settings of its data, (size of people, size of clothes), fields, pairs to leave out."""

    data: str
    config: "DataConfig"
    sizes: tuple[tuple[int, int], tuple[int, int]]
    fields: tuple[str, ...] | None
    excluded: "Excluded | None"

    def reader(self, setting: str, split: str) -> "FolderReader":
        """The reader of one part of the folder, with the fields that are there."""
        from drape.data.shard_writer import packable
        from drape.data.shards import is_packed
        from drape.training.sources import arguments_of

        if is_packed(self.data):
            raise ConfigError(f"{self.data} is packed already. Name the folder of images, or read it with --check.")
        if setting not in SETTINGS:
            raise ConfigError(f"setting is {setting!r}, expected one of {', '.join(SETTINGS)}.")
        layout, arguments = arguments_of(self.config, cast("Setting", setting), split, *self.sizes)
        skip = self.excluded or ()
        fields = self.fields
        if fields is None:
            found = layout(self.data, **arguments, fields=("person",), skip=skip)
            fields = packable(found.folders, setting=setting, cloth_kind=self.config.cloth_kind)
        return layout(self.data, **arguments, fields=fields, skip=skip)

    def leave_out(self, readers: "list[FolderReader]") -> None:
        """Take the excluded pairs out of the readers.  Raises DataError for unknown ones, or if nothing is left."""
        if self.excluded is None:
            return
        self.excluded.check([pair for reader in readers for pair in reader.ids])
        for reader in readers:
            reader.ids = [pair for pair in reader.ids if pair not in self.excluded]
            if not reader.ids:
                raise DataError(f"{self.excluded.path} excludes every pair of {reader.place}. Shorten the list.")


def _check(where: str) -> int:
    """Read every shard and compare its digest.  Raises DataError for the first that differs."""
    from drape.data.shard_places import place_of
    from drape.data.shards import Shards, read_parts

    parts = read_parts(place_of(where))
    total = sum(len(part.shards) for part in parts)
    done = 0
    with bar("shards") as on_shard:
        for part in parts:
            Shards(where, split=part.split, setting=part.setting).verify(
                lambda number, _, before=done: on_shard(before + number, total)  # type: ignore[misc]
            )
            done += len(part.shards)
            print(f"ok  {part.name.replace('-', ', ')}: {sum(len(s.samples) for s in part.shards)} samples")
    print(f"ok  {total} shards, all digests agree")
    return 0
