"""Pairs held side by side: copies and overlaps are found, look-alikes are not; wrong clothes stand out of the rest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drape.survey import lookup, measures
from drape.survey.colours import Colours, find_mismatches
from drape.survey.cross import cross, find_few_clothes, find_joint_orders
from drape.survey.duplicates import find_duplicates, find_shared_ids
from drape.survey.facts import PairFacts, Problem
from drape.survey.hashes import dhash, phash, pixel_hash
from drape.survey.limits import Limits
from drape.survey.report import KindOfProblem, widespread
from drape.survey.statistics import statistics_of

SIZE = (128, 96)


def photo(seed: int) -> np.ndarray:
    """A smooth picture with some large shapes, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8))
    return np.asarray(coarse.resize(SIZE[::-1], Image.Resampling.BICUBIC))


def facts_of(root: Path, split: str, name: str, person: np.ndarray, cloth: np.ndarray | None = None) -> PairFacts:
    """Write the pictures of a pair and return their facts."""
    cloth = photo(hash((split, name)) % 2**32) if cloth is None else cloth
    files, hashes = {}, {}
    for kind, folder, pixels in (("person", "image", person), ("cloth", "cloth", cloth)):
        path = root / split / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        files[kind] = path.relative_to(root).as_posix()
        hashes |= {f"{kind}.pixels": pixel_hash(pixels), f"{kind}.phash": phash(pixels), f"{kind}.dhash": dhash(pixels)}
    return PairFacts(split=split, person_id=name, cloth_id=name, files=files, hashes=hashes)


def people(root: Path, count: int = 8, split: str = "train") -> list[PairFacts]:
    first = 0 if split == "train" else 1000
    return [facts_of(root, split, f"{split[:2]}{i}", photo(first + i), photo(first + 500 + i)) for i in range(count)]


def jpeg(pixels: np.ndarray, quality: int, tmp_path: Path) -> np.ndarray:
    Image.fromarray(pixels).save(tmp_path / "saved.jpg", quality=quality)
    return np.asarray(Image.open(tmp_path / "saved.jpg"))


def test_near_codes_are_those_that_brute_force_finds() -> None:
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 2**63, 300, dtype=np.uint64) for _ in range(2)]
    for code in codes:
        for bit in range(3):
            code[200:] = code[:100] ^ (np.uint64(1) << np.uint64(7 * bit))
    apart = [np.bitwise_count(code[:, None] ^ code[None]) for code in codes]
    expected = np.argwhere((apart[0] <= 3) & (apart[1] <= 3))
    expected = expected[expected[:, 0] < expected[:, 1]]
    assert len(expected) == 100
    assert np.array_equal(lookup.near(codes, (3, 3)), expected)


def test_a_set_of_one_picture_ends() -> None:
    same = np.zeros(2000, dtype=np.uint64)
    assert len(lookup.near([same, same], (4, 4))) == lookup.MOST


def test_links_become_groups() -> None:
    assert lookup.linked([(5, 1), (2, 3), (1, 4), (3, 9)]) == [[1, 4, 5], [2, 3, 9]]
    assert lookup.equal(["a", None, "b", "a", None]) == [[0, 3]]


def test_codes_of_mirrored_pictures_are_known_without_mirroring_them() -> None:
    for seed in range(8):
        pixels = photo(seed)
        mirrored = np.ascontiguousarray(pixels[:, ::-1])
        for code, turned in ((phash, lookup.mirrored_phash), (dhash, lookup.mirrored_dhash)):
            apart = turned(lookup.parse([code(pixels)])) ^ lookup.parse([code(mirrored)])
            assert int(np.bitwise_count(apart)[0]) <= 8


def test_unlike_pictures_are_no_duplicates(tmp_path: Path) -> None:
    assert find_duplicates(tmp_path, people(tmp_path, 12)) == []


def test_the_same_picture_twice_is_a_duplicate_and_the_first_may_stay(tmp_path: Path) -> None:
    facts = people(tmp_path)
    facts.append(facts_of(tmp_path, "train", "copy", photo(3)))
    (problem,) = find_duplicates(tmp_path, facts)
    assert (problem.kind, problem.ids, problem.exclude) == ("duplicate", ("copy",), True)
    assert "tr3" in problem.message and problem.paths == ("train/image/tr3.png", "train/image/copy.png")


@pytest.mark.parametrize("change", ["saved again", "half the size", "cut", "darker", "mirrored"])
def test_a_picture_that_was_changed_a_little_is_a_near_duplicate(change: str, tmp_path: Path) -> None:
    pixels = photo(3)
    image = Image.fromarray(pixels)
    changed = {
        "saved again": lambda: jpeg(pixels, 60, tmp_path),
        "half the size": lambda: np.asarray(image.resize((48, 64), Image.Resampling.LANCZOS)),
        "cut": lambda: np.asarray(image.crop((3, 4, 96, 128)).resize(SIZE[::-1], Image.Resampling.LANCZOS)),
        "darker": lambda: (pixels * 0.85).astype(np.uint8),
        "mirrored": lambda: np.ascontiguousarray(jpeg(pixels, 80, tmp_path)[:, ::-1]),
    }[change]()
    facts = [*people(tmp_path), facts_of(tmp_path, "train", "copy", changed)]
    (problem,) = find_duplicates(tmp_path, facts)
    assert (problem.kind, problem.severity, problem.ids) == ("near duplicate", "warning", ("copy",))


def test_the_same_person_in_another_cloth_is_no_duplicate(tmp_path: Path) -> None:
    other = photo(3).copy()
    other[40:90, 25:70] = photo(77)[40:90, 25:70]
    facts = [*people(tmp_path), facts_of(tmp_path, "train", "other", other)]
    assert find_duplicates(tmp_path, facts) == []


def test_a_picture_in_both_splits_is_an_overlap_and_training_loses_it(tmp_path: Path) -> None:
    facts = [*people(tmp_path), *people(tmp_path, 4, "test")]
    facts.append(facts_of(tmp_path, "train", "leaked", jpeg(photo(1002), 80, tmp_path)))
    (problem,) = find_duplicates(tmp_path, facts)
    assert (problem.kind, problem.severity, problem.split, problem.ids) == ("overlap", "error", "train", ("leaked",))
    assert problem.exclude and "te2 of test" in problem.message


def test_three_alike_are_one_problem(tmp_path: Path) -> None:
    facts = people(tmp_path)
    facts += [facts_of(tmp_path, "train", f"copy{q}", jpeg(photo(3), q, tmp_path)) for q in (50, 70)]
    (problem,) = find_duplicates(tmp_path, facts)
    assert problem.ids == ("copy50", "copy70")


def test_a_cloth_that_two_people_wear_is_a_warning_only(tmp_path: Path) -> None:
    facts = people(tmp_path)
    facts.append(facts_of(tmp_path, "train", "friend", photo(90), photo(503)))
    (problem,) = find_duplicates(tmp_path, facts)
    assert (problem.kind, problem.severity, problem.exclude) == ("duplicate cloth", "warning", False)


def test_an_id_in_both_splits_is_an_error_if_it_is_the_same_person(tmp_path: Path) -> None:
    train, test = people(tmp_path), people(tmp_path, 4, "test")
    assert find_shared_ids([*train, *test]) == []
    same = replace(train[0], split="test")
    person, cloth = find_shared_ids([*train, *test, same])
    assert (person.kind, person.severity, person.exclude) == ("overlap of ids", "error", True)
    assert cloth.severity == "warning" and person.ids == cloth.ids == ("tr0",)
    numbered_alike = facts_of(tmp_path, "test", "tr0", photo(333))
    person, _ = find_shared_ids([*train, *test, numbered_alike])
    assert (person.severity, person.exclude) == ("warning", False) and "other pictures" in person.message


def coloured(name: str, cloth: tuple[int, int, int], worn: tuple[int, int, int], split: str = "train") -> PairFacts:
    """A pair of whose pictures the colours alone are known."""

    def spread(colour: tuple[int, int, int]) -> tuple[float, ...]:
        noise = np.random.default_rng(hash(name) % 2**32).normal(0, 6, (400, 3))
        return tuple(measures.spread(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).tolist())

    return PairFacts(
        split=split, person_id=name, cloth_id=name, cloth_spread=spread(cloth), worn_spread=spread(worn),
        hashes={"cloth.pixels": name},
    )  # fmt: skip


def wardrobe(count: int = 40) -> list[PairFacts]:
    """People in clothes of all colours, worn in a light of their own."""
    rng = np.random.default_rng(1)
    found = []
    for i in range(count):
        colour = rng.integers(30, 250, 3)
        worn = colour * rng.uniform(0.7, 1.0)
        found.append(coloured(f"p{i:02d}", tuple(colour.tolist()), tuple(worn.astype(int).tolist())))
    return found


def test_light_and_shade_make_nobody_suspicious() -> None:
    problems, about = find_mismatches(wardrobe(), Limits())
    assert problems == [] and not any(each["flagged"] for each in about["suspects"])
    assert about["pairs"]["train"]["closer"] < 0.05


def test_a_cloth_of_another_colour_stands_out_and_the_right_one_is_named() -> None:
    facts = wardrobe()
    facts[5] = replace(facts[5], cloth_spread=coloured("p05", (20, 220, 60), (0, 0, 0)).cloth_spread)
    facts[6] = replace(facts[6], worn_spread=coloured("p06", (0, 0, 0), (230, 30, 40)).worn_spread)
    facts[7] = coloured("p07", (230, 30, 40), (228, 30, 40))
    problems, about = find_mismatches(facts, Limits())
    assert {each.ids for each in problems} == {("p05",), ("p06",)}
    assert all(each.kind == "mismatched pair" and each.severity == "warning" and each.exclude for each in problems)
    assert {each["person_id"] for each in about["suspects"][:2]} == {"p05", "p06"}
    assert "p07 best" in next(each.message for each in problems if each.ids == ("p06",))


def test_two_that_wear_each_others_cloth_are_one_problem() -> None:
    facts = wardrobe()
    facts[3] = coloured("p03", (230, 30, 40), (30, 60, 220))
    facts[9] = coloured("p09", (30, 60, 220), (230, 30, 40))
    (problem,) = find_mismatches(facts, Limits())[0]
    assert problem.ids == ("p03", "p09") and "each other's cloth" in problem.message


@pytest.mark.parametrize(
    ("step", "said"), [(1, "1 place further on"), (-1, "1 place back"), (2, "2 places further on")]
)
def test_a_list_out_of_step_is_one_problem_of_the_split(step: int, said: str) -> None:
    facts = wardrobe()
    moved = [replace(each, cloth_spread=facts[(i - step) % 40].cloth_spread) for i, each in enumerate(facts)]
    (problem,) = find_mismatches(moved, Limits())[0]
    assert (problem.kind, problem.ids) == ("shuffled pairs", ()) and said in problem.message


def test_a_set_of_one_colour_is_not_shuffled() -> None:
    facts = [coloured(f"p{i}", (200, 200, 200), (190, 190, 190)) for i in range(20)]
    assert find_mismatches(facts, Limits())[0] == []


def test_too_few_pairs_say_nothing() -> None:
    facts = [coloured(f"p{i}", (250, 20, 20), (20, 20, 250)) for i in range(4)]
    assert find_mismatches(facts, Limits())[0] == []


def test_distances_do_not_depend_on_the_light_within_its_range() -> None:
    pair = coloured("p", (200, 80, 60), (160, 64, 48))
    far = coloured("p", (200, 80, 60), (60, 80, 200))
    assert float(Colours([pair]).own[0]) < 2.5 < 20 < float(Colours([far]).own[0])


def test_people_with_blue_skin_in_most_pictures_are_a_problem_of_the_set(tmp_path: Path) -> None:
    facts = [replace(each, numbers={"skin warmth": -40.0}) for each in wardrobe(10)]
    kinds = [each.kind for each in cross(tmp_path, facts).problems]
    assert kinds == ["channel order of the set"]
    facts[:6] = [replace(each, numbers={"skin warmth": 40.0}) for each in facts[:6]]
    assert cross(tmp_path, facts).problems == []


def test_a_set_with_few_clothes_is_an_error_and_a_few_who_share_one_are_not(tmp_path: Path) -> None:
    facts = people(tmp_path, 12)
    cloth = facts[0].hashes["cloth.pixels"]
    shared = [replace(each, hashes=each.hashes | {"cloth.pixels": cloth}) for each in facts]
    assert find_few_clothes(shared[:4] + facts[4:]) == [] == find_few_clothes(shared[:6])
    (found,) = find_few_clothes(shared)
    assert (found.kind, found.severity, found.ids) == ("few clothes", "error", ())
    assert "12 people of train have 1 different picture of clothes" in found.message
    assert find_few_clothes([replace(each, split="test") for each in shared]) == []


def test_poses_in_another_order_are_a_problem_of_the_set_where_most_are() -> None:
    wrong = Problem(kind="joint order", severity="error", message="", remedy="", split="train")
    facts = [
        PairFacts(
            split="train", person_id=f"p{i}", cloth_id=f"p{i}", files={"joints": "j"}, problems=(wrong,) * (i < 3)
        )
        for i in range(6)
    ]
    assert find_joint_orders(facts) == []
    (found,) = find_joint_orders(facts[:5])
    assert (found.kind, found.severity) == ("joint order of the set", "error") and "3 of 5 poses" in found.message


def test_what_nearly_all_pairs_have_is_said_to_be_of_the_set() -> None:
    def told(count: int) -> str:
        names = tuple(f"p{i}" for i in range(count))
        problem = Problem(kind="leak", severity="error", message="", remedy="", split="train", ids=names)
        return widespread(KindOfProblem("leak", (problem,)), {"train": 10, "test": 10})

    assert [told(8), told(9)[:20], told(10)[:13]] == ["", "nearly all of train:", "all of train:"]


def test_statistics_of_nothing_are_empty_tables() -> None:
    tables = statistics_of([])
    assert tables["sizes"] == {} and tables["labels"] == {} and tables["palette"] == [] and tables["outliers"] == []


def test_statistics_count_sizes_labels_and_colours() -> None:
    histogram = [0.0] * 64
    histogram[63] = 1.0
    facts = [
        PairFacts(
            split="train", person_id=f"p{i}", cloth_id=f"p{i}", sizes={"person": (128, 96)},
            labels=(0.75, *[0.0] * 4, 0.25, *[0.0] * 14), cloth_colours=tuple(histogram),
            numbers={"person brightness": 100.0 + i % 5 + 150 * (i == 7)},
        )
        for i in range(30)
    ]  # fmt: skip
    tables = statistics_of(facts)
    assert tables["sizes"] == {"person": {"128x96": 30}}
    assert tables["labels"]["upper clothes"] == {"share": 0.25, "pictures": 1.0, "most": 0.25}
    assert tables["palette"] == [{"rgb": [224, 224, 224], "share": 1.0}]
    assert sum(tables["brightness"]["person"]) == 30
    assert [each["person_id"] for each in tables["outliers"]] == ["p7"]
