"""Trackers: the records of log.jsonl and validation.jsonl, and the previews, also in TensorBoard or Weights & Biases.

The JSON lines are the truth; a tracker is handed the very records that were written there.  What it holds and what the
files hold stay the same over kills and resumes: on a resume a tracker says which records it surely has, records that
it lost are sent again from the files, and those that it has already are not sent twice.
A tracker that fails is left out from then on, with one line of warning.  Training never stops for it.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from drape.errors import ConfigError, did_you_mean
from drape.training.records import TRAINING, VALIDATION, Record, lines, parse

PREVIEWS = "previews"  # folder of a run with inputs.png and NUMBER-OF-IMAGES.png


@runtime_checkable
class Tracker(Protocol):
    """One place where curves and pictures go.  Any method may raise anything; `Trackers` deals with it.

    last   the records of up to so many images are there already, each once; -1 where there is none
    """

    last: int

    def config(self, config: Mapping[str, Any]) -> None:
        """The settings of the run; called once, first."""

    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        """Values by name, such as train/loss; `images` never falls."""

    def picture(self, images: int, name: str, path: Path) -> None:
        """A picture file."""

    def close(self, *, finished: bool) -> None:
        """No more is to come from this process; `finished` if the run is complete."""


Factory = Callable[[Path, int], Tracker]


def parse_names(values: Sequence[str]) -> tuple[str, ...]:
    """The trackers named by `--track tensorboard,wandb` or `--track tensorboard --track wandb`, each once, in order.

    Raises ConfigError for a name that is none.
    """
    names = [name.strip().lower() for value in values for name in value.split(",") if name.strip()]
    for name in names:
        if name not in FACTORIES:
            known = f"Trackers: {', '.join(FACTORIES)}."
            raise ConfigError(f"there is no tracker {name!r}. {did_you_mean(name, FACTORIES, otherwise=known)}")
    return tuple(dict.fromkeys(names))


def build_trackers(names: Sequence[str], out: Path, config: Mapping[str, Any], images_seen: int) -> "Trackers":
    """The trackers of the run in `out`, brought up to what its checkpoint counts.

    names         from `parse_names`; none in all processes but the main one
    config        `RunConfig.to_dict()`
    images_seen   of the checkpoint that the run goes on from; -1 where there is none
    Raises ConfigError if the package of a tracker is missing.
    """
    factories = {name: FACTORIES[name]() for name in names}
    trackers = Trackers()
    for name, factory in factories.items():
        trackers.start(name, factory, out, config, images_seen)
    return trackers


class Trackers:
    """All trackers of a run as one; without any, every method does nothing.

    `training` and `validation` are listeners of the logs (`telemetry.Log`): they take records as the files hold them.
    """

    def __init__(self) -> None:
        self._trackers: dict[str, Tracker] = {}

    def start(self, name: str, factory: Factory, out: Path, config: Mapping[str, Any], images_seen: int) -> None:
        """Add a tracker, hand it the settings, and send it what the files of the run hold and it does not."""

        def begin() -> None:
            tracker = self._trackers[name] = factory(out, images_seen)
            tracker.config(config)
            _replay(tracker, out, images_seen)

        self._guard(name, begin)

    def training(self, record: Record) -> None:
        """A record of log.jsonl, as train/loss and so on."""
        self._each(lambda tracker: _send_scalars(tracker, record, "train"))

    def validation(self, record: Record) -> None:
        """A record of validation.jsonl, as validation/ema/loss and so on."""
        self._each(lambda tracker: _send_scalars(tracker, record, f"validation/{record['weights']}"))

    def picture(self, images: int, path: Path, name: str = "preview") -> None:
        """A picture that was just written."""
        self._each(lambda tracker: _send_picture(tracker, images, path, name))

    def close(self, *, finished: bool = True) -> None:
        """Send what is pending and release everything; `finished` if the run is complete, not only interrupted."""
        self._each(lambda tracker: tracker.close(finished=finished))
        self._trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            self._guard(name, lambda tracker=tracker: call(tracker))  # type: ignore[misc]  # bound now, called now

    def _guard(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # whatever a tracker does, the run is worth more than its curves
            self._trackers.pop(name, None)
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            print(
                f"drape: {name} failed and is left out from here ({reason}). The run goes on; {TRAINING} has every "
                "number, and the next resume sends what is missing.",
                file=sys.stderr,
            )


def _replay(tracker: Tracker, out: Path, images_seen: int) -> None:
    """Send the records and previews of up to `images_seen` images that the tracker does not have, oldest first."""
    if tracker.last >= images_seen:
        return
    sends: list[tuple[int, Callable[[], None]]] = []
    for file, prefix in ((TRAINING, "train"), (VALIDATION, "validation/{weights}")):
        for record in filter(None, map(parse, lines(out / file))):
            sends.append((record["images"], partial(_send_scalars, tracker, record, prefix.format_map(record))))
    for path in (out / PREVIEWS).glob("*.png"):
        if path.stem.isdigit():
            sends.append((int(path.stem), partial(_send_picture, tracker, int(path.stem), path, "preview")))
        else:  # what goes into the first step, drawn before it
            sends.append((0, partial(_send_picture, tracker, 0, path, path.stem)))
    for images, send in sorted(sends, key=lambda each: each[0]):
        if images <= images_seen:
            send()


def _send_scalars(tracker: Tracker, record: Record, prefix: str) -> None:
    if record["images"] > tracker.last:
        numbers = {key: value for key, value in record.items() if type(value) in (int, float) and key != "images"}
        tracker.scalars(record["images"], {f"{prefix}/{key}": value for key, value in numbers.items()})


def _send_picture(tracker: Tracker, images: int, path: Path, name: str) -> None:
    if images > tracker.last:
        tracker.picture(images, name, path)


def _tensorboard() -> Factory:
    with _package("tensorboard"):
        from drape.training.track_tensorboard import TensorBoard
    return TensorBoard


def _wandb() -> Factory:
    with _package("wandb"):
        from drape.training.track_wandb import WandB
    return WandB


@contextmanager
def _package(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"--track {name} needs the package {name}, and it cannot be imported ({error}). "
            "Install it with pip install 'drape[track]', or leave --track out."
        ) from error


FACTORIES: dict[str, Callable[[], Factory]] = {"tensorboard": _tensorboard, "wandb": _wandb}
"""What imports a tracker's package and gives what makes the tracker from (folder of the run, images seen)."""
