"""The batches of a run: everybody who is trained on, and nobody who is held out."""

from collections import Counter

import pytest
import torch

from drape.config import RunConfig, override
from drape.data.cache import cache
from drape.data.compact import Compact, Words, to_sample
from drape.data.sample import TryOnSample
from drape.presets import tiny
from drape.training.sources import Source

PEOPLE = 40
SETTINGS = ["batch_size=6", "validation.held_out=0.2", "data.flip=0.0"]
CONFIG = override(tiny(), SETTINGS)


class People:
    """A reader of people whose picture is one grey, which says who they are; p wears the cloth p + `shift`."""

    fields = ("person", "cloth", "agnostic", "agnostic_mask", "pose", "cloth_pose")
    settings: dict[str, object] = {}  # noqa: RUF012
    place = "drawn"

    def __init__(self, *, shift: int = 0, listed: range = range(PEOPLE)) -> None:
        self.ids = [(f"p{number:02d}", f"c{(number + shift) % PEOPLE:02d}") for number in listed]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> TryOnSample:
        return to_sample(self.compact(index), self.fields)

    def by_id(self, person_id: str) -> TryOnSample:
        return self[[person for person, _ in self.ids].index(person_id)]

    def fingerprint(self) -> str:
        return "drawn"

    def compact(self, index: int) -> Compact:
        person, cloth = self.ids[index]
        grey = torch.full((3, 32, 24), 5 * int(person[1:]), dtype=torch.uint8)
        grey[:, 0, 0], grey[:, 0, 1] = 0, 255
        pose = torch.ones(18, 3)
        arrays = {"person": grey, "cloth": grey, "agnostic_mask": grey[:1] * 0, "pose": pose, "cloth_pose": pose}
        return Compact(arrays, Words(person, cloth, "drawn", "none", "flat"))


def source(*, config: RunConfig = CONFIG, cached: bool = True) -> Source:
    """Both settings; the second lists its people the other way round."""
    readers = [People(), People(shift=1, listed=range(PEOPLE - 1, -1, -1))]
    parts = [cache(reader) for reader in readers] if cached else None
    return Source(config=config, readers=list(readers), cached=parts, workers=0)


def pairs_of(data: Source, images: int) -> list[tuple[str, str]]:
    """Who was seen in what, in the batches of the first `images` images."""
    size, found = data.config.batch_size, []
    for _, batch in data.batches(0, [slice(0, size)]):
        found += list(zip(batch.person_id, batch.cloth_id, strict=True))
        if len(found) >= images:
            break
    return found[:images]


@pytest.mark.parametrize("cached", [True, False])
def test_nobody_held_out_is_ever_in_a_batch_in_either_setting(cached: bool) -> None:
    data = source(cached=cached)
    assert len(data.held) == 8
    epoch = 2 * (PEOPLE - len(data.held))
    seen = Counter(pairs_of(data, 3 * epoch))
    assert not data.held & {person for person, _ in seen}
    everybody = {pair for reader in data.readers for pair in reader.ids}
    assert seen == dict.fromkeys((pair for pair in everybody if pair[0] not in data.held), 3)


def test_what_is_validated_on_are_the_held_out_people_in_the_last_setting() -> None:
    data = source()
    chosen = [data.readers[-1].ids[index] for index in data.validation_indices()]
    assert {person for person, _ in chosen} == data.held and len(chosen) == len(data.held)
    assert all(int(cloth[1:]) == (int(person[1:]) + 1) % PEOPLE for person, cloth in chosen)


@pytest.mark.parametrize("cached", [True, False])
def test_yardsticks_are_computed_from_people_that_are_trained_on(cached: bool) -> None:
    data = source(cached=cached)
    greys = data.people_images(1000)[:, 0, -1, -1]
    shown = Counter(round((grey + 1) / 2 * 255 / 5) for grey in greys.tolist())
    assert shown == {number: 2 for number in range(PEOPLE) if f"p{number:02d}" not in data.held}


def test_the_people_of_a_batch_can_be_named_without_reading_it() -> None:
    data = source()
    assert data.people(12) == [person for person, _ in pairs_of(data, 18)[12:]]


def test_previews_show_people_that_are_held_out() -> None:
    data = source()
    people, batch = data.preview(4)
    assert set(batch.person_id) <= data.held
    assert torch.equal(people, batch.need("person"))


def test_without_validation_everybody_is_trained_on_and_previews_show_them() -> None:
    data = source(config=override(CONFIG, ["validation.every=0"]))
    assert data.held == frozenset() and data.validation_indices() == []
    assert len(set(pairs_of(data, 2 * PEOPLE))) == 2 * PEOPLE
    assert len(data.preview(4)[1]) == 4
