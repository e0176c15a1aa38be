"""One sample: what its maps promise each other."""

from dataclasses import fields, replace

import numpy as np
import pytest

from drape.data.parse_labels import FACE, HAIR, LEFT_ARM, PANTS, RIGHT_ARM, SKIRT, UPPER
from drape.mannequin import make_cloth, make_person, make_sample, render_person_in
from drape.mannequin.keypoints import BODY_25, PARULA, body_25, densepose_rgb, draw_skeleton
from drape.mannequin.render import body_parts
from drape.mannequin.sample import MannequinSample, partner

SIZE = (64, 48)


@pytest.fixture(scope="module")
def samples() -> list[MannequinSample]:
    return [make_sample(7, i, SIZE, worn=i == 0) for i in range(6)]


def test_a_sample_has_every_map_at_the_size_asked_for(samples: list[MannequinSample]) -> None:
    for sample in samples:
        assert sample.image.shape == sample.cloth.shape == sample.counterfactual.shape == (*SIZE, 3)
        assert sample.parse.shape == sample.agnostic_mask.shape == sample.densepose.shape == SIZE
        assert sample.warp.shape == (*SIZE, 2) and sample.warp.dtype == np.float16
        assert sample.joints.shape == (25, 3)


def test_the_same_seed_and_index_give_the_same_bytes_in_any_order(samples: list[MannequinSample]) -> None:
    for i in (4, 1):
        again = make_sample(7, i, SIZE)
        for field in fields(MannequinSample):
            if field.name != "worn":
                one, two = getattr(samples[i], field.name), getattr(again, field.name)
                assert np.array_equal(one, two, equal_nan=field.name.endswith("warp")), field.name


def test_another_seed_index_or_split_is_another_person_and_cloth() -> None:
    people = {make_person(*key) for key in ((7, 0, "train"), (7, 1, "train"), (8, 0, "train"), (7, 0, "test"))}
    cloths = {make_cloth(*key) for key in ((7, 0, "train"), (7, 1, "train"), (8, 0, "train"), (7, 0, "test"))}
    assert len(people) == len(cloths) == 4


def test_everybody_has_a_head_a_cloth_and_lower_clothes(samples: list[MannequinSample]) -> None:
    for sample in samples:
        labels = set(np.unique(sample.parse))
        assert {FACE, UPPER} <= labels
        assert labels & {PANTS, SKIRT}
        assert labels & {LEFT_ARM, RIGHT_ARM}
        assert (sample.parse == UPPER).mean() > 0.08
        rows = np.nonzero(np.isin(sample.parse, (FACE, HAIR)))[0]
        assert rows.min() >= 1, "there is room above the head"


def test_no_pixel_with_a_share_of_the_old_cloth_is_visible_to_the_net(samples: list[MannequinSample]) -> None:
    for i, sample in enumerate(samples):
        view = render_person_in(make_person(7, i), make_cloth(7, i), SIZE)
        assert not ((view.cloth_share > 0) & ~sample.agnostic_mask).any()
        assert (sample.parse[view.cloth_share > 0] == UPPER).all()


def test_agnostic_is_the_image_outside_the_mask_and_gray_inside(samples: list[MannequinSample]) -> None:
    for sample in samples:
        assert np.array_equal(sample.agnostic[~sample.agnostic_mask], sample.image[~sample.agnostic_mask])
        assert (sample.agnostic[sample.agnostic_mask] == 128).all()


def test_a_cloth_pixel_is_warped_into_the_cloth_and_nothing_else_is(samples: list[MannequinSample]) -> None:
    for sample in samples:
        known = np.isfinite(sample.warp).all(-1)
        assert (sample.parse[known] == UPPER).all()
        assert known.sum() > 0.6 * (sample.parse == UPPER).sum()
        x, y = (sample.warp[known].astype(float) * SIZE[::-1]).astype(int).T
        assert sample.cloth_mask[np.clip(y, 0, 63), np.clip(x, 0, 47)].mean() > 0.93


def test_a_frontal_person_has_the_left_of_the_cloth_on_the_left(samples: list[MannequinSample]) -> None:
    for i, sample in enumerate(samples):
        if abs(make_person(7, i).pose.turn) < 0.3:
            known = np.isfinite(sample.warp).all(-1) & np.isin(sample.densepose, (1, 2))
            columns = np.nonzero(known)[1]
            assert np.corrcoef(columns, sample.warp[known][:, 0].astype(float))[0, 1] > 0.9


def test_the_person_in_their_own_cloth_is_the_image(samples: list[MannequinSample]) -> None:
    own = make_sample(7, 2, SIZE, other=2)
    assert np.array_equal(own.counterfactual, own.image)
    assert np.array_equal(own.image, samples[2].image)
    assert np.array_equal(own.counterfactual_warp, own.warp, equal_nan=True)


def test_a_counterfactual_keeps_face_pose_and_background(samples: list[MannequinSample]) -> None:
    for sample in samples:
        change = np.abs(sample.counterfactual.astype(int) - sample.image).max(-1)
        assert change[:4].max() == 0, "the strip above the head"
        assert change[sample.parse == UPPER].mean() > 8, "the cloth is another one"
        assert np.median(change[sample.parse == FACE]) <= 1


def test_densepose_tells_nothing_about_the_cloth() -> None:
    person = make_person(7, 3)
    assert np.array_equal(body_parts(person, SIZE), make_sample(7, 3, SIZE, other=5).densepose)
    assert set(np.unique(body_parts(person, SIZE))) <= set(range(25))


def test_both_cloth_images_show_the_same_garment_in_two_poses(samples: list[MannequinSample]) -> None:
    worn = samples[0].worn
    assert worn is not None
    assert (worn.image[~worn.mask] == 255).all()
    assert worn.mask.mean() > 0.05
    assert np.abs(worn.joints[:8] - samples[0].joints[:8]).max() > 2.0
    colours = worn.image[worn.mask].mean(0), samples[0].cloth[samples[0].cloth_mask].mean(0)
    assert np.abs(colours[0] - colours[1]).max() < 70


def test_joints_in_the_picture_are_found_and_others_are_zero() -> None:
    joints = dict.fromkeys(BODY_25, (10.0, 20.0)) | {"l_wrist": (-3.0, 20.0), "r_knee": (10.0, 64.0)}
    table = body_25(joints, SIZE)
    assert table.shape == (25, 3)
    assert (table[7] == 0).all() and (table[10] == 0).all()
    assert np.allclose(table[0], [10.0, 20.0, 0.9])
    assert (table[19:] == 0).all(), "feet are never in the picture"


def test_left_is_the_persons_left(samples: list[MannequinSample]) -> None:
    for sample in samples:
        if sample.joints[2, 2] and sample.joints[5, 2]:
            assert sample.joints[2, 0] < sample.joints[5, 0], "the right shoulder is on the left of the picture"


def test_densepose_colours_can_be_read_back() -> None:
    parts = np.arange(25, dtype=np.uint8).reshape(5, 5)
    colours = densepose_rgb(parts).astype(int)
    assert np.array_equal(np.abs(colours[:, :, None] - PARULA.astype(int)).sum(-1).argmin(-1), parts)


def test_the_skeleton_is_drawn_where_the_joints_are(samples: list[MannequinSample]) -> None:
    drawn = np.asarray(draw_skeleton(samples[0].joints, SIZE))
    x, y, _ = samples[0].joints[1]
    assert drawn[int(y), int(x)].max() > 100
    assert (drawn.max(-1) == 0).mean() > 0.7


def test_the_last_person_wears_the_cloth_of_the_first() -> None:
    assert [partner(i, 4) for i in range(4)] == [1, 2, 3, 0]


def test_a_larger_picture_shows_the_same_person() -> None:
    person, cloth = make_person(7, 1), make_cloth(7, 1)
    small, large = (render_person_in(person, cloth, size) for size in (SIZE, (256, 192)))
    reduced = large.image.reshape(64, 4, 48, 4, 3).mean((1, 3))
    assert np.abs(reduced - small.image).mean() < 0.02
    assert np.allclose(np.array(small.joints["l_elbow"]) * 4, large.joints["l_elbow"], atol=1e-3)


def test_long_hair_and_a_bald_head_can_be_asked_for() -> None:
    person, cloth = make_person(7, 1), make_cloth(7, 1)
    assert (render_person_in(replace(person, hair_style="bald"), cloth, SIZE).parse != HAIR).all()
    assert (render_person_in(replace(person, hair_style="long"), cloth, SIZE).parse == HAIR).sum() > 20
