"""Weights & Biases.  Steps are images; RUN/tracking.json holds the run's id, so that a resumed run goes on in it.

W&B takes no step twice: within a run a step below the newest is dropped, and a resumed run starts after the newest step
that the server has.  drape therefore asks what is there before it sends anything: the server, or offline the run's own
files.  A run that was killed some steps after its checkpoint makes these steps again; W&B keeps the first version.
On one machine and a CPU the second is equal bit for bit; on a GPU it may differ in the last digits.
"""

import json
import os
import secrets
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import wandb
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made when it is imported

from drape.storage import write_json

ID_FILE = "tracking.json"
PROJECT = "drape"  # unless WANDB_PROJECT says another
FINISH_S = 300.0  # how long the end of a run waits for a network that is away; `wandb sync` sends the rest later
BLOCK = 32_768


class WandB:
    """Scalars, previews and settings.  WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_NAME and so on are heeded."""

    def __init__(self, out: Path, images_seen: int) -> None:
        run_id = stored_id(out)
        self.last = max((step for path in offline_files(out, run_id) for step in steps(path)), default=-1)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.environ.get("WANDB_NAME") or out.resolve().name,
            id=run_id,
            resume="allow",
            reinit="create_new",
            dir=str(out),
            settings=wandb.Settings(console="off", finish_timeout=FINISH_S),
        )
        if not self._run.offline:
            self.last = self._run.starting_step - 1 if self._run.resumed else -1
        self._run.define_metric("images")
        self._run.define_metric("*", step_metric="images", step_sync=True)

    def config(self, config: Mapping[str, Any]) -> None:
        """The settings, and as tags what one filters runs by."""
        self._run.config.update(dict(config), allow_val_change=True)
        tags = {str(config[key]) for key in ("name", "precision") if key in config}
        tags |= {str(config["diffusion"]["target"])} if "diffusion" in config else set()
        self._run.tags = tuple(sorted(tags | set(self._run.tags or ())))

    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        """All that is logged with the same number of images becomes one row, sent when the next one begins."""
        self._run.log({"images": images, **values}, step=images)

    def picture(self, images: int, name: str, path: Path) -> None:
        """A picture of that row."""
        self._run.log({"images": images, name: wandb.Image(str(path))}, step=images)

    def close(self, *, finished: bool) -> None:
        """Send the last row.  An interrupted run shows as failed until it is resumed."""
        self._run.finish(exit_code=0 if finished else 1)


def stored_id(out: Path) -> str:
    """The id of this run at W&B, made (or taken from WANDB_RUN_ID) the first time.  Raises ValueError if damaged."""
    path = out / ID_FILE
    if path.exists():
        return str(json.loads(path.read_text(encoding="utf-8"))["wandb"]["id"])
    run_id = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
    write_json(path, {"wandb": {"id": run_id}})
    return run_id


def offline_files(out: Path, run_id: str) -> list[Path]:
    """What earlier processes of this run recorded, oldest first."""
    return sorted((out / "wandb").glob(f"*run-*-{run_id}/run-{run_id}.wandb"))


def steps(path: Path) -> Iterator[int]:
    """The steps of all rows of a .wandb file."""
    return (record.history.step.num for record in records(path) if record.WhichOneof("record_type") == "history")


def records(path: Path) -> Iterator[Record]:
    """The whole records of a .wandb file, up to the first that is cut short.

    A log of LevelDB's format after seven bytes of its own: blocks of 32 KiB with chunks of checksum (4 bytes), length
    (2), kind (1: whole, 2: first, 3: middle, 4: last) and content.  [github.com/google/leveldb, doc/log_format.md]
    """
    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:  # too little for a chunk: zeros up to the end of the block
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        chunk = content[place + 7 : place + 7 + length]
        if kind not in (1, 2, 3, 4) or len(chunk) < length:
            return
        place += 7 + length
        parts = chunk if kind in (1, 2) else parts + chunk
        if kind in (1, 4):
            yield Record.FromString(parts)
