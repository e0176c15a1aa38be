"""The measures separate sound pairs from broken ones, on mannequins and on real pairs where they are there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drape.data import parse_labels as labels
from drape.data.parse_labels import MIRRORED, is_any
from drape.data.pose import read_joints, to_pose
from drape.mannequin.dataset import Recipe, write_dataset
from drape.survey import measures

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "viton-hd-sample" / "test"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The arrays of a pair as they lie on disk."""

    person: np.ndarray
    cloth: np.ndarray
    cloth_mask: np.ndarray
    parse: np.ndarray
    mask: np.ndarray
    agnostic: np.ndarray
    densepose: np.ndarray
    pose: np.ndarray


def read_pair(base: Path, name: str) -> Pair:
    def rgb(path: str) -> np.ndarray:
        return np.asarray(Image.open(base / path).convert("RGB"))

    parse = np.asarray(Image.open(base / f"image-parse-v3/{name}.png"))
    joints = read_joints(base / f"openpose_json/{name}_keypoints.json")
    return Pair(
        person=rgb(f"image/{name}.jpg"),
        cloth=rgb(f"cloth/{name}.jpg"),
        cloth_mask=rgb(f"cloth-mask/{name}.jpg")[..., 0] >= 128,
        parse=parse,
        mask=rgb(f"agnostic-mask/{name}_mask.png")[..., 0] >= 128,
        agnostic=rgb(f"agnostic-v3.2/{name}.jpg"),
        densepose=rgb(f"image-densepose/{name}.jpg"),
        pose=to_pose(joints, parse.shape).numpy().astype(np.float64),
    )


def read_all(base: Path, most: int) -> list[Pair]:
    names = sorted(path.stem for path in (base / "image").iterdir())[:most]
    return [read_pair(base, name) for name in names]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    root = tmp_path_factory.mktemp("measures") / "people"
    write_dataset(root, Recipe(people=8, test=0, seed=21, size=(96, 72), textures=None, worn=False))
    return read_all(root / "train", 8)


@pytest.fixture(scope="module", params=["mannequins", "real"])
def pairs(request: pytest.FixtureRequest) -> list[Pair]:
    if request.param == "mannequins":
        found: list[Pair] = request.getfixturevalue("people")
        return found
    if not REAL.is_dir():
        pytest.skip("shared/data/viton-hd-sample is not there")
    return read_all(REAL, 3)


def mirrored(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[:, ::-1])


def test_a_good_mask_covers_the_cloth_and_little_background_and_its_inverse_the_other_way_round(
    pairs: list[Pair],
) -> None:
    for pair in pairs:
        cloth, background = measures.mask_cover(pair.mask, pair.parse)
        assert cloth is not None and cloth > 0.99 and background is not None and background < 0.5
        cloth, background = measures.mask_cover(~pair.mask, pair.parse)
        assert cloth is not None and cloth < 0.01 and background is not None and background > 0.5


def test_a_parse_without_cloth_has_no_cover() -> None:
    empty = np.zeros((20, 16), np.uint8)
    assert measures.mask_cover(empty == 0, empty) == (None, 1.0)


def test_joints_lie_on_the_body_and_on_their_labels_and_those_of_another_person_do_not(pairs: list[Pair]) -> None:
    others = [*pairs[1:], pairs[0]]
    own = [measures.joints_on_body(pair.pose, pair.parse) for pair in pairs]
    assert own == [1.0] * len(pairs)
    assert all((measures.pose_misfit(pair.pose, pair.parse) or 0.0) < 0.002 for pair in pairs)
    strange = [measures.pose_misfit(other.pose, pair.parse) or 0.0 for pair, other in zip(pairs, others, strict=True)]
    assert np.mean(strange) > 0.002


def test_a_pose_without_joints_says_nothing(people: list[Pair]) -> None:
    nobody = np.zeros((18, 3))
    parse = people[0].parse
    assert measures.joints_on_body(nobody, parse) is None
    assert measures.pose_misfit(nobody, parse) is None
    assert measures.sides_swapped(nobody, parse) is None
    assert measures.facing(nobody) is None


def test_exchanged_sides_turn_the_evidence_round(pairs: list[Pair]) -> None:
    exchange = list(measures.POSE_MIRRORED)
    own = [value for pair in pairs if (value := measures.sides_swapped(pair.pose, pair.parse)) is not None]
    joints = [v for pair in pairs if (v := measures.sides_swapped(pair.pose[exchange], pair.parse)) is not None]
    parses = [v for pair in pairs if (v := measures.sides_swapped(pair.pose, MIRRORED[pair.parse])) is not None]
    assert own and max(own) < 0.3 and np.mean(own) < -0.5
    assert np.allclose(joints, [-value for value in own]) and np.allclose(parses, joints)
    assert all((measures.facing(pair.pose) or 0.0) >= 0.5 for pair in pairs)
    assert all((measures.facing(pair.pose[exchange]) or 0.0) <= -0.5 for pair in pairs)


def test_an_image_mirrored_alone_is_told_from_its_parse(pairs: list[Pair]) -> None:
    for pair in pairs:
        assert measures.flipped_evidence(pair.person, pair.parse) < -0.02
        assert measures.flipped_evidence(mirrored(pair.person), pair.parse) > 0.02


def test_mirroring_a_pose_twice_gives_it_back(people: list[Pair]) -> None:
    for pair in people:
        assert np.allclose(measures.mirrored_pose(measures.mirrored_pose(pair.pose)), pair.pose)


def test_a_parse_lies_on_the_edges_of_its_own_image_and_of_no_other(pairs: list[Pair]) -> None:
    others = [*pairs[1:], pairs[0]]
    for pair, other in zip(pairs, others, strict=True):
        own = measures.edges_on_labels(pair.person, pair.parse) + 3 * measures.aligned(pair.person, pair.parse)
        strange = measures.edges_on_labels(pair.person, other.parse) + 3 * measures.aligned(pair.person, other.parse)
        assert own > 0.8 and strange < own - 0.2


def test_densepose_sees_heads_and_arms_where_the_parse_does(pairs: list[Pair]) -> None:
    others = [*pairs[1:], pairs[0]]
    for pair, other in zip(pairs, others, strict=True):
        own = measures.parts_agree(measures.densepose_parts(pair.densepose), pair.parse)
        strange = measures.parts_agree(measures.densepose_parts(other.densepose), pair.parse)
        assert own is not None and own > 0.9 and strange is not None and strange < 0.85


def test_skin_is_warm_and_blue_where_channels_are_exchanged(pairs: list[Pair]) -> None:
    for pair in pairs:
        warm = measures.skin_is_warm(pair.person, pair.parse)
        cold = measures.skin_is_warm(np.ascontiguousarray(pair.person[..., ::-1]), pair.parse)
        assert warm is not None and warm > 15 and cold == pytest.approx(-warm)


def test_the_colours_of_a_cloth_are_nearer_to_its_wearer_than_those_of_most_other_clothes(pairs: list[Pair]) -> None:
    def distance(cloth: Pair, person: Pair) -> float:
        worn = is_any(person.parse, labels.UPPER_CLOTHES)
        spreads = (measures.spread(colours) for colours in (cloth.cloth[cloth.cloth_mask], person.person[worn]))
        return measures.spread_distance(*spreads)

    others = [*pairs[1:], pairs[0]]
    own = [distance(pair, pair) for pair in pairs]
    strange = [distance(other, pair) for pair, other in zip(pairs, others, strict=True)]
    assert np.median(strange) > 2 * np.median(own)
    assert max(own) < 14


def blended(pair: Pair, share: float) -> np.ndarray:
    mixed = (1 - share) * pair.agnostic.astype(np.float64) + share * pair.person
    return np.round(mixed).astype(np.uint8)


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_the_leak_is_the_share_of_the_person_that_shines_through(pairs: list[Pair], share: float) -> None:
    for pair in pairs:
        assert measures.leak(pair.agnostic, pair.person, pair.mask) == pytest.approx(0.0, abs=0.005)
        assert measures.leak(blended(pair, share), pair.person, pair.mask) == pytest.approx(share, abs=0.02)


def test_an_agnostic_image_is_gray_inside_its_mask_and_the_image_outside(pairs: list[Pair]) -> None:
    for pair in pairs:
        assert measures.is_gray_inside(pair.agnostic, pair.mask) == 1.0
        assert measures.differs_outside(pair.agnostic, pair.person, pair.mask) == pytest.approx(0.0, abs=1e-4)
        assert (measures.is_gray_inside(pair.person, pair.mask) or 0.0) < 0.5
        assert (measures.differs_outside(mirrored(pair.agnostic), pair.person, pair.mask) or 0.0) > 0.02


@pytest.mark.parametrize("measure", [measures.leak, measures.differs_outside])
def test_without_any_pixel_left_there_is_no_number(
    people: list[Pair], measure: Callable[[np.ndarray, np.ndarray, np.ndarray], float | None]
) -> None:
    pair = people[0]
    mask = np.full(pair.mask.shape, measure is measures.differs_outside)
    assert measure(pair.agnostic, pair.person, mask) is None


def test_the_gray_of_agnostic_images_is_taken_with_the_noise_of_jpeg_and_no_further() -> None:
    levels = np.array([[[108, 148, 128], [107, 128, 128], [128, 128, 149]]], np.uint8)
    assert measures.is_gray(levels).tolist() == [[True, False, False]]
    apart = levels.copy()
    apart[0, 0] += 24
    apart[0, 1] += 25
    assert measures.differs(levels, apart).tolist() == [[False, True, False]]
