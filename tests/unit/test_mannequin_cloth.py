"""Cuts, fabrics and the cloth on the table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drape.errors import DataError
from drape.mannequin.cloth import NECKLINES, RULES, build_cloth, covered, sample_cut
from drape.mannequin.fabric import ODDS, PATTERNS, Fabric, find_textures, paint, sample_fabric
from drape.mannequin.flat import Cloth, cloth_texture, lay_flat
from drape.mannequin.rest import facts, facts_of
from drape.mannequin.seeds import stream

SIZE = (64, 48)
COLOURS = ((0.9, 0.1, 0.1), (0.1, 0.1, 0.9), (0.1, 0.8, 0.1), (0.9, 0.9, 0.1))


def plain(pattern: str = "plain", **changes: object) -> Fabric:
    return replace(Fabric(pattern=pattern, colours=COLOURS, scale=0.05, word="HELLO"), **changes)


def cloth_of(kind: str, seed: int = 0, fabric: Fabric | None = None) -> Cloth:
    cut = sample_cut(stream(seed, kind), kind)
    return Cloth(cut=cut, fabric=fabric or plain(), trim=0, details=0, seed=seed)


def test_there_are_at_least_six_kinds_and_their_odds_are_probabilities() -> None:
    assert len(RULES) >= 6
    assert sum(rule.odds for rule in RULES.values()) == pytest.approx(1.0)
    assert {neck for rule in RULES.values() for neck in rule.necklines} <= set(NECKLINES)
    assert len(ODDS) == len(PATTERNS)


@pytest.mark.parametrize("kind", RULES)
def test_every_kind_lies_inside_its_picture_and_fills_it(kind: str) -> None:
    flat = lay_flat(cloth_of(kind), SIZE)
    rows, columns = np.nonzero(flat.mask > 0)
    assert rows.min() >= 1 and columns.min() >= 1 and rows.max() < SIZE[0] - 1 and columns.max() < SIZE[1] - 1
    assert max(np.ptp(rows) / SIZE[0], np.ptp(columns) / SIZE[1]) > 0.85


@pytest.mark.parametrize("kind", RULES)
def test_the_table_around_a_cloth_is_nearly_white(kind: str) -> None:
    flat = lay_flat(cloth_of(kind), SIZE)
    assert flat.image[flat.mask == 0].min() > 0.8
    assert flat.image[0].min() > 0.94


def test_a_sleeve_ends_where_the_cut_says() -> None:
    for kind in ("tee", "longsleeve"):
        cut = sample_cut(stream(kind), kind)
        mesh = build_cloth(cut)
        on_sleeve = (mesh.keep > 0) & (mesh.rest.share > 0.9)
        assert mesh.rest.arm[on_sleeve, 0].max() == pytest.approx(cut.sleeve, abs=0.03)


def test_a_tank_top_has_no_sleeves_and_a_turtleneck_hides_the_throat() -> None:
    tank = build_cloth(sample_cut(stream(0), "tank"))
    assert tank.rest.share[tank.keep > 0].max() < 0.6
    throat = facts(np.array([[0.0, 1.455, 0.045]]))
    crew = replace(sample_cut(stream(0), "tee"), neckline="crew")
    assert covered(throat, crew)[0] < 0 < covered(throat, replace(crew, neckline="turtle"))[0]


def test_the_hem_is_as_long_as_the_cut_says() -> None:
    cut = replace(sample_cut(stream(0), "tee"), hem=0.90)
    mesh = build_cloth(cut)
    assert mesh.rest.p[mesh.keep >= 0, 1].min() == pytest.approx(0.90, abs=0.02)


@pytest.mark.parametrize("kind", RULES)
def test_a_cloth_lies_outside_the_body_everywhere(kind: str) -> None:
    mesh, tight = build_cloth(sample_cut(stream(kind, 3), kind)), facts_of("top")
    moved = mesh.rest.p[: len(tight.p)] - tight.p
    outward = np.stack([tight.p[:, 0], 0 * tight.p[:, 0], tight.p[:, 2]], 1)
    trunk = (tight.share < 0.1) & (tight.p[:, 1] < 1.3)
    assert (moved[trunk] * outward[trunk]).sum(1).min() > -1e-4


def test_the_two_halves_of_a_plain_cloth_mirror_each_other() -> None:
    flat = lay_flat(cloth_of("tee"), SIZE)
    assert np.abs(flat.mask - flat.mask[:, ::-1]).mean() < 0.02


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p != "photo"])
def test_every_fabric_paints_colours(pattern: str) -> None:
    x, y = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 500)).astype(np.float32)
    rgb = paint(plain(pattern), x, y + 1.2)
    assert rgb.shape == (500, 3)
    assert rgb.min() >= 0.0 and rgb.max() <= 1.0


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p not in ("plain", "raglan")])
def test_every_pattern_shows_more_than_one_colour(pattern: str) -> None:
    y, x = np.meshgrid(np.linspace(0.9, 1.4, 60), np.linspace(-0.2, 0.2, 60), indexing="ij")
    rgb = paint(plain(pattern), x.ravel().astype(np.float32), y.ravel().astype(np.float32))
    assert rgb.std(0).max() > 0.02


def test_stripes_repeat_with_their_period() -> None:
    y = np.linspace(1.0, 1.05, 50, dtype=np.float32)
    stripes = plain("stripes")
    assert np.allclose(paint(stripes, 0 * y, y), paint(stripes, 0 * y, y + np.float32(0.05)), atol=1e-3)


def test_the_colours_of_a_fabric_differ_from_each_other() -> None:
    for seed in range(30):
        first, *others = np.array(sample_fabric(stream(seed)).colours)
        assert min(np.linalg.norm(first - other) for other in others) > 0.2


def test_a_photograph_becomes_a_fabric(tmp_path: Path) -> None:
    photo = np.zeros((80, 60, 3), np.uint8)
    photo[:, :, 0] = 200
    Image.fromarray(photo).save(tmp_path / "red.png")
    assert find_textures(tmp_path) == (tmp_path / "red.png",)
    rgb = paint(
        plain("photo", photo=tmp_path / "red.png"), np.zeros(5, np.float32), np.linspace(0.9, 1.4, 5, dtype=np.float32)
    )
    assert np.allclose(rgb, [200 / 255, 0, 0], atol=0.01)


def test_missing_empty_and_unreadable_textures_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no texture folder"):
        find_textures(tmp_path / "absent")
    with pytest.raises(DataError, match="holds no"):
        find_textures(tmp_path)
    (tmp_path / "broken.jpg").write_text("not a picture")
    with pytest.raises(DataError, match=r"cannot read the texture .*broken\.jpg"):
        paint(plain("photo", photo=tmp_path / "broken.jpg"), np.zeros(1, np.float32), np.ones(1, np.float32))


def test_the_texture_is_the_photo_without_light() -> None:
    flat = lay_flat(cloth_of("longsleeve"), SIZE)
    inside = flat.mask == 1
    light = flat.image[inside].mean(1) / cloth_texture(flat)[inside].mean(1)
    assert light.min() > 0.7 and light.max() < 1.3
    assert light.std() > 0.005


def test_a_print_sits_on_the_chest_and_not_on_the_sleeves() -> None:
    flat = lay_flat(cloth_of("longsleeve", fabric=plain("letters", word="OK")), (128, 96))
    blue = (flat.albedo[..., 2] > 0.6) & np.isfinite(flat.depth)
    columns = np.nonzero(blue)[1] / blue.shape[1]
    assert blue.sum() > 50
    assert columns.min() > 0.3 and columns.max() < 0.7
