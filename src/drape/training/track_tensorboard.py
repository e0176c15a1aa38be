"""TensorBoard: event files in RUN/tensorboard.  `tensorboard --logdir runs` compares runs."""

import json
import struct
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter

FOLDER = "tensorboard"


class TensorBoard:
    """Scalars, pictures and the settings as text; steps are images.  Scalars are stored in 32 bits.

    Every process of a run writes a file of its own.  It begins with the mark of a start at the first step that is to
    come; TensorBoard then hides what earlier files have from that step on, so that no step appears twice.
    """

    def __init__(self, out: Path, images_seen: int) -> None:
        folder = out / FOLDER
        # What an earlier process wrote last may be cut in half: a picture without its numbers.  It is sent again.
        self.last = min(newest_step(folder) - 1, images_seen)
        self._writer = EventFileWriter(str(folder))
        self._write(Event(step=self.last + 1, session_log=SessionLog(status=SessionLog.START)))

    def config(self, config: Mapping[str, Any]) -> None:
        """The settings under TEXT, once."""
        if self.last < 0:
            text = f"```json\n{json.dumps(config, indent=1)}\n```"
            plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
            tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
            self._summary(0, [Summary.Value(tag="config", metadata=plugin, tensor=tensor)])

    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        """One point a name."""
        self._summary(images, [Summary.Value(tag=name, simple_value=value) for name, value in values.items()])

    def picture(self, images: int, name: str, path: Path) -> None:
        """A picture under IMAGES, the very bytes of the file."""
        with Image.open(path) as opened:
            width, height = opened.size
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes())
        self._summary(images, [Summary.Value(tag=name, image=image)])

    def close(self, *, finished: bool) -> None:
        """Close the event file."""
        self._writer.close()

    def _summary(self, images: int, values: list[Summary.Value]) -> None:
        self._write(Event(step=images, summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        """The event is in the file when this returns: a kill of the process loses none."""
        event.wall_time = time.time()
        self._writer.add_event(event)
        self._writer.flush()


def newest_step(folder: Path) -> int:
    """The step of the last whole event in the newest event file that has one; 0 where there is none."""
    for path in sorted(folder.glob("events.out.tfevents.*"), reverse=True):
        if newest := deque(events(path), maxlen=1):
            return int(Event.FromString(newest[0]).step)
    return 0


def events(path: Path) -> Iterator[bytes]:
    """The whole records of a TFRecord file: length (8 bytes), its checksum (4), content, its checksum (4)."""
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", head[:8])
            content = file.read(length + 4)
            if len(content) < length + 4:
                return
            yield content[:length]
