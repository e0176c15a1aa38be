"""What comes with drape: people, clothes and weights, under names a person can type.

    assets/people    a small folder in the VITON-HD layout, one split; the ids are the names
    assets/clothes   NAME.jpg, NAME_mask.png, and clothes.json: in which order, from where, under which licence
    assets/weights   NAME.safetensors, or shards of it with an index

Nothing here opens an image or loads torch; assets/LICENCES.md says where everything comes from.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from drape.errors import CheckpointError, DataError, DrapeError, did_you_mean

ASSETS = Path(__file__).with_name("assets")
SPLIT = "test"
"""The one split of the bundled people."""

BEST_FIRST = ("small-128", "mini-64")
FEW_IMAGES = 4
"""Up to so many images a CPU makes with the larger net in seconds; beyond, "best" is the lighter one there."""

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True, kw_only=True)
class BundledCloth:
    """A flat cloth on white: its picture, its mask, where it comes from."""

    name: str
    image: Path
    mask: Path
    source: str
    licence: str


def people_folder() -> Path:
    """The folder of the bundled people, in the VITON-HD layout."""
    return ASSETS / "people"


def people() -> tuple[str, ...]:
    """Names of the bundled people."""
    pairs = people_folder() / f"{SPLIT}_pairs.txt"
    if not pairs.is_file():
        return ()
    lines = (line.split() for line in pairs.read_text(encoding="utf-8").splitlines())
    return tuple(dict.fromkeys(Path(words[0]).stem for words in lines if words))


def clothes() -> tuple[str, ...]:
    """Names of the bundled clothes."""
    return tuple(_clothes())


def cloth(name: str) -> BundledCloth:
    """The bundled cloth of this name.  Raises DataError with the nearest name if there is none."""
    known = _clothes()
    if name not in known:
        raise DataError(f"there is no bundled cloth {name!r}. {suggestion(name, known)}")
    folder = ASSETS / "clothes"
    return BundledCloth(name=name, image=folder / f"{name}.jpg", mask=folder / f"{name}_mask.png", **known[name])


def weights() -> dict[str, Path]:
    """The file to load of each of the bundled weights, by name."""
    found: dict[str, Path] = {}
    for suffix in (".safetensors", ".safetensors.index.json"):  # an index wins over the shards it names
        for path in sorted((ASSETS / "weights").glob(f"*{suffix}")):
            found[path.name.removesuffix(suffix)] = path
    return {name: path for name, path in found.items() if not _SHARD.search(name)}


def best_weights(*, has_gpu: bool, images: int = 1) -> str:
    """Name of the best bundled weights for this machine: the largest net, but on a CPU the lightest for a whole sheet.

    Raises CheckpointError if no weights are bundled.
    """
    bundled = weights()
    if not bundled:
        raise CheckpointError(
            "no weights are bundled with this copy of drape. Train some: 'drape mannequin people --people 5000', then "
            "'drape train mini-64 --data people --out runs/mini', and give --weights runs/mini."
        )
    ranked = [name for name in BEST_FIRST if name in bundled] or sorted(bundled)
    return ranked[0] if has_gpu or images <= FEW_IMAGES else ranked[-1]


def weights_file(name_or_path: str | Path) -> Path:
    """The file of bundled weights, or the path itself.  Raises CheckpointError for what is neither name nor path."""
    bundled = weights()
    if str(name_or_path) in bundled:
        return bundled[str(name_or_path)]
    path = Path(name_or_path)
    if path.exists() or path.suffix or path.name != str(name_or_path):
        return path  # whoever loads it says what is wrong with it
    raise CheckpointError(f"there are no weights {path.name!r}. {suggestion(path.name, bundled)}")


def suggestion(name: str, known: Collection[str]) -> str:
    """What to write instead of an unknown name: the nearest known one, and all of them."""
    if not known:
        return "None is bundled with this copy of drape: give a path."
    return f"{did_you_mean(name, known, otherwise='')} Bundled: {', '.join(known)}.".lstrip()


def _clothes() -> dict[str, dict[str, str]]:
    path = ASSETS / "clothes" / "clothes.json"
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {name: {"source": words["source"], "licence": words["licence"]} for name, words in known.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DrapeError(f"{path} is damaged ({error!r}). Install drape again.") from error
