"""Who is held out from training."""

from dataclasses import replace

from drape.settings import ValidationConfig
from drape.training.held_out import held_out_people, split, validation_pairs

CONFIG = ValidationConfig(held_out=0.1, pairs=64)
IDS = [(f"p{number:03d}", f"c{number:03d}") for number in range(200)]


def test_the_same_people_are_held_out_in_whatever_order_a_folder_lists_them() -> None:
    _, held = split(IDS, CONFIG)
    _, again = split(IDS[::-1], CONFIG)
    assert len(held) == 20
    assert {IDS[i] for i in held} == {IDS[::-1][i] for i in again}


def test_every_pair_is_on_one_side_and_a_person_is_held_out_with_all_pairs() -> None:
    ids = IDS + [(person, "other") for person, _ in IDS[:120]]
    training, held = split(ids, CONFIG)
    assert sorted(training + held) == list(range(len(ids)))
    assert not {ids[i][0] for i in training} & {ids[i][0] for i in held}


def test_both_settings_of_a_set_hold_out_the_same_people() -> None:
    counterfactual = [(person, cloth) for (person, _), (_, cloth) in zip(IDS, IDS[1:] + IDS[:1], strict=True)]
    first, second = (held_out_people((p for p, _ in ids), CONFIG) for ids in (IDS, counterfactual))
    assert first == second


def test_no_more_people_are_held_out_than_are_validated_on() -> None:
    _, held = split(IDS, replace(CONFIG, held_out=0.5, pairs=8))
    assert len(held) == 8


def test_a_larger_validation_holds_out_the_people_of_a_smaller_one_too() -> None:
    few, many = (held_out_people((p for p, _ in IDS), replace(CONFIG, pairs=pairs)) for pairs in (4, 16))
    assert few < many


def test_a_small_set_is_trained_on_as_a_whole() -> None:
    assert split(IDS[:31], CONFIG) == (list(range(31)), [])
    assert len(split(IDS[:32], CONFIG)[1]) == 4


def test_a_share_of_none_holds_nobody_out() -> None:
    assert split(IDS, replace(CONFIG, held_out=0.0))[1] == []


def test_a_run_without_validation_holds_nobody_out() -> None:
    assert split(IDS, replace(CONFIG, every=0)) == (list(range(200)), [])


def test_pairs_to_validate_on_show_as_many_people_as_there_are() -> None:
    ids = [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), ("c", "1")]
    chosen = validation_pairs(ids, range(5), 4)
    assert {ids[i][0] for i in chosen[:3]} == {"a", "b", "c"}
    assert ids[chosen[3]][0] == "a"


def test_pairs_to_validate_on_do_not_depend_on_the_order_they_are_given_in() -> None:
    chosen = [IDS[i] for i in validation_pairs(IDS, range(50), 8)]
    turned = IDS[::-1]
    assert [turned[i] for i in validation_pairs(turned, range(150, 200), 8)] == chosen
