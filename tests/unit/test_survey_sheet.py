"""The contact sheet: what is on it, what is said where something is missing, and that nothing is cut off."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drape.config import RunConfig, override
from drape.data.parse_labels import PALETTE
from drape.data.pose import COCO_IN_BODY25
from drape.diffusion.prediction import add_noise
from drape.errors import ConfigError, DataError
from drape.presets import mini_64, preset, tiny
from drape.survey.drawing import PAPER, fitted, joined, width_of, wrapped
from drape.survey.overlays import CLOTH, COMPUTED, dimmed, enlarged, missing, outlined, skeleton
from drape.survey.sheet import HEIGHT, Cell, Head, Key, Row, cell_size, draw_sheet
from drape.survey.sheet_inputs import Feed, Stage, given, input_cells
from drape.survey.sheet_pairs import SPLINE, Look, cells_of, open_pairs
from drape.survey.sheet_set import default_stages, show_set, stage_of
from drape.training.engine import Engine
from drape.training.loop import Updater
from drape.training.preview import write_inputs
from drape.training.randomness import draw
from drape.training.sources import Micro, Source, open_reader
from drape.training.state import TrainState

IDS = ["00001_00", "00002_00", "00003_00"]


def first(root: Path, config: RunConfig, count: int = 3) -> Micro:
    """The first images of a run."""
    return next(source_of(root, config).batches(0, [slice(0, count)]))


def source_of(root: Path, config: RunConfig) -> Source:
    return Source(config=config, readers=[open_reader(config, root, setting="paired")], cached=None, workers=0)


def small(*settings: str) -> RunConfig:
    return override(tiny(), ['data.settings=["paired"]', "batch_size=3", *settings])


def bytes_of(picture: Image.Image | None) -> np.ndarray:
    assert picture is not None
    return np.asarray(picture)


# --- what a net is given


@pytest.mark.parametrize("settings", [[], ["noise_aug.train_max=1.0", "condition_drop=0.5", "precision=bf16"]])
def test_the_tensors_are_those_of_a_training_step(viton, settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(*settings)
    micro = first(viton.write(IDS).root, config)
    engine = Engine(config, "cpu")
    state = TrainState.fresh(config, engine)
    calls = []
    state.net.register_forward_pre_hook(lambda net, arguments: calls.append(arguments))
    Updater(state, engine).update([micro], 1e-4)
    ((x_t, log_snr, conditions),) = calls
    found = given(config, micro)
    assert torch.equal(found.x_t, x_t) and torch.equal(found.log_snr, log_snr)
    for name in ("cloth", "agnostic", "pose", "cloth_pose", "noise_aug"):
        assert torch.equal(getattr(found.conditions, name), getattr(conditions, name)), name


def test_cells_show_shape_range_level_and_pixels_as_squares(viton) -> None:
    config = small("noise_aug.train_max=1.0", "condition_drop=0.0")
    micro = first(viton.write(IDS).root, config)
    cells = {cell.title: cell for cell in input_cells(config, micro, 1, times=(0.5,))}
    t = float(micro.draws.t[1])
    assert list(cells) == ["cloth", "agnostic", "pose", "target x0", f"x_t, t {t:.2f} (drawn)", "x_t, t 0.50"]
    cloth = given(config, micro).conditions.cloth[1]
    level = float(micro.draws.aug_level[1, 1])
    assert cells["cloth"].lines == ("3x32x24", f"{cloth.min():.2f} to {cloth.max():.2f}", f"noise level {level:.2f}")
    shown = bytes_of(cells["cloth"].picture)
    assert shown.shape == (HEIGHT, 192, 3)
    expected = ((cloth.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.array_equal(shown[::8, ::8], expected) and np.array_equal(shown[7::8, 7::8], expected)


def test_the_noised_image_is_that_of_the_time_it_says(viton) -> None:
    config = small()
    micro = first(viton.write(IDS).root, config)
    *_, last = input_cells(config, micro, 0, times=(0.5,))
    log_snr = config.diffusion.build_schedule(config.resolution).log_snr(torch.tensor([0.5]))
    x_t = add_noise(micro.batch.need("person")[:1], micro.draws.eps[:1], log_snr)
    assert last.lines == ("3x32x24", f"{x_t.min():.2f} to {x_t.max():.2f}", f"log-SNR {float(log_snr[0]):.2f}")


def test_dropped_conditions_are_shown_as_the_zeros_they_are(viton) -> None:
    config = small()
    micro = first(viton.write(IDS).root, config)
    micro = micro._replace(draws=replace(micro.draws, drop=torch.tensor([True, False, False])))
    cloth, agnostic, pose, *_ = input_cells(config, micro, 0)
    assert cloth.lines == agnostic.lines == ("3x32x24", "0.00 to 0.00", "dropped: all 0")
    assert pose.lines == ("18x3", "all 0: the null pose")
    assert (bytes_of(cloth.picture) == 128).all()


def test_a_refining_stage_shows_its_low_resolution_too(viton) -> None:
    config = small("net.low_res=true", "resolution=[64, 48]", "noise_aug.train_max=1.0", "condition_drop=0.0")
    titles = [cell.title for cell in input_cells(config, first(viton.write(IDS).root, config), 0)]
    assert titles[:4] == ["cloth", "agnostic", "low_res", "pose"]


def test_each_pair_is_shown_with_the_draws_of_an_image_that_keeps_its_conditions(viton) -> None:
    config = small("condition_drop=0.9")
    kept = [number for number in range(200) if not draw(config, number, 1).drop[0]][:2]
    feed = Feed(Stage(name="tiny", config=config), viton.write(IDS).root, split="train", setting="paired")
    for number in kept:
        row = feed.row((IDS[0], IDS[0]))
        assert any(note.startswith(f"as image {number}") for note in row.notes) and row.cells


def test_a_stage_that_cannot_be_trained_says_why(viton) -> None:
    root = viton.write(IDS).root
    (root / "train" / "openpose_json" / f"{IDS[1]}_keypoints.json").unlink()
    feed = Feed(Stage(name="tiny", config=small()), root, split="train", setting="paired")
    assert feed.row((IDS[0], IDS[0])).cells
    refused = feed.row((IDS[1], IDS[1]))
    assert not refused.cells and refused.failure.startswith("tiny cannot be trained on this pair: ")
    assert "keypoints.json is missing" in refused.failure and "data.pose=null" in refused.failure


# --- the files of a pair


def look_at(root: Path, person: str = IDS[0], cloth: str | None = None) -> dict[str, Cell]:
    look = Look(open_pairs(root, split="train", setting="paired"), person, cloth or person)
    return {cell.title: cell for cell in cells_of(look, ())}


def test_every_modality_is_shown_with_what_it_is(viton) -> None:
    cells = look_at(viton.write(IDS).root)
    assert all(cell.picture is not None and not cell.absent for cell in cells.values())
    assert list(cells) == ["person", "cloth", "mask over person", "agnostic", "parse", "pose", "cloth on person"]
    assert cells["person"].lines == ("128x96",)
    assert cells["parse"].lines == ("8 labels",)
    assert cells["pose"].lines == ("12 of 18 joints", "missing: knees, ankles, ears")
    assert cells["agnostic"].lines == ("made from the computed mask",)
    assert cells["cloth on person"].lines == (SPLINE,)
    colours = {tuple(colour) for colour in bytes_of(cells["parse"].picture).reshape(-1, 3).tolist()}
    assert colours == {tuple(PALETTE[label].tolist()) for label in (0, 2, 5, 9, 10, 13, 14, 15)}


def test_a_mask_that_comes_with_the_data_is_compared_with_the_computed_one(viton) -> None:
    root = viton.write(IDS).root
    computed = Look(open_pairs(root, split="train", setting="paired"), IDS[0], IDS[0]).masks["computed"]
    viton.image("train", f"agnostic-mask/{IDS[0]}_mask.png", np.uint8(255) * computed)
    assert look_at(root)["mask over person"].lines[2] == "they agree: IoU 1.000"
    viton.image("train", f"agnostic-mask/{IDS[0]}_mask.png", np.uint8(255) * ~computed)
    assert look_at(root)["mask over person"].lines[2] == "they agree: IoU 0.000"


@pytest.mark.parametrize(
    ("file", "empty"),
    [
        ("image/{}.jpg", {"person", "mask over person", "agnostic", "pose", "cloth on person"}),
        ("cloth/{}.jpg", {"cloth", "cloth on person"}),
        ("image-parse-v3/{}.png", {"mask over person", "agnostic", "parse", "cloth on person"}),
        ("openpose_json/{}_keypoints.json", {"mask over person", "agnostic", "pose"}),
    ],
)
def test_what_is_missing_is_an_empty_cell_that_names_it(viton, file: str, empty: set[str]) -> None:
    root = viton.write(IDS).root
    (root / "train" / file.format(IDS[0])).unlink()
    cells = look_at(root)
    assert {title for title, cell in cells.items() if cell.picture is None} == empty
    for title in empty:
        assert f"{file.format(IDS[0])} is missing" in cells[title].absent
    shown = show_set(root, ids=IDS[:2])
    assert shown.pairs == ((IDS[0], IDS[0]), (IDS[1], IDS[1]))


def test_without_a_cloth_mask_its_outline_is_found_in_the_photo(viton) -> None:
    root = viton.write(IDS).root
    (root / "train" / "cloth-mask" / f"{IDS[0]}.jpg").unlink()
    cells = look_at(root)
    assert cells["cloth"].lines == ("128x96", f"cloth-mask/{IDS[0]}.jpg is missing")
    assert cells["cloth on person"].lines == (SPLINE, "outline found in the photo")


def test_a_dresscode_folder_is_shown_too(tmp_path: Path, parse: np.ndarray, joints: np.ndarray) -> None:
    base = tmp_path / "dresscode" / "upper_body"
    for folder in ("images", "label_maps", "keypoints"):
        (base / folder).mkdir(parents=True)
    for suffix in "01":
        rgb = np.random.default_rng(0).integers(0, 256, (*parse.shape, 3), dtype=np.uint8)
        Image.fromarray(rgb).save(base / "images" / f"000001_{suffix}.jpg", format="PNG")
    Image.fromarray(np.where(parse == 5, np.uint8(4), np.uint8(0))).save(base / "label_maps" / "000001_4.png")
    rows = joints[list(COCO_IN_BODY25)] * [4, 4, 1]
    points = [[*row, 0.0] if row[2] else [-1, -1, 0, -1] for row in rows.tolist()]
    (base / "keypoints" / "000001_2.json").write_text(json.dumps({"keypoints": points}))
    (base / "train_pairs.txt").write_text("000001_0.jpg\t000001_1.jpg\n")
    shown = show_set(base.parent)
    assert (shown.source, shown.pairs) == ("dresscode/upper_body", (("000001", "000001"),))
    assert shown.stages == ("mini-64", "small-128")


@pytest.mark.parametrize("file", ["image/{}.jpg", "cloth-mask/{}.jpg", "openpose_json/{}_keypoints.json"])
def test_a_damaged_file_is_named(viton, file: str) -> None:
    root = viton.write(IDS).root
    (root / "train" / file.format(IDS[1])).write_bytes(b"\x89PNG no more")
    with pytest.raises(DataError, match=file.format(IDS[1])):
        show_set(root)


def test_a_file_of_another_size_is_named(viton) -> None:
    root = viton.write(IDS).root
    viton.image("train", f"image-parse-v3/{IDS[0]}.png", np.zeros((64, 48), np.uint8))
    with pytest.raises(DataError, match="64x48 but its person image is 128x96"):
        look_at(root)


# --- the set


def test_without_names_the_pairs_are_spread_over_the_split(viton) -> None:
    ids = [f"{number:05d}_00" for number in range(9)]
    shown = show_set(viton.write(ids).root, people=3, stages=[Stage(name="tiny", config=small())])
    assert [person for person, _ in shown.pairs] == ["00000_00", "00003_00", "00006_00"]
    assert (shown.total, shown.source, shown.stages) == (9, "viton-hd", ("tiny",))


def test_somebody_unknown_and_too_many_are_refused(viton) -> None:
    root = viton.write(IDS).root
    with pytest.raises(DataError, match=r"no person 0001_00 among its 3\. Did you mean 00001_00\?"):
        show_set(root, ids=["0001_00"])
    with pytest.raises(ConfigError, match="60 pairs are more than one sheet shows"):
        show_set(root, people=60)


def stages_for(viton, size: tuple[int, int], *, lacking: str = "") -> tuple[Stage, ...]:
    root = viton.write(IDS[:1]).root
    rgb = np.zeros((*size, 3), np.uint8)
    for folder in ("image", "cloth"):
        viton.image("train", f"{folder}/{IDS[0]}.jpg", rgb)
    if lacking:
        (root / "train" / lacking.format(IDS[0])).unlink()
        viton.image("train", f"agnostic-mask/{IDS[0]}_mask.png", rgb)
    look = Look(open_pairs(root, split="train", setting="paired"), IDS[0], IDS[0])
    return default_stages([look], root, "train")


def test_the_nets_that_are_shown_fit_the_pictures(viton) -> None:
    assert [s.config.resolution for s in stages_for(viton, (32, 24))] == [(32, 24)]
    assert [s.config.resolution for s in stages_for(viton, (1024, 768))] == [(64, 48), (128, 96)]
    assert [s.config.resolution for s in stages_for(viton, (256, 256))] == [(64, 64), (128, 128)]
    (odd,) = stages_for(viton, (100, 71))
    assert odd.config.resolution == (64, 64) and odd.config.data.fit == "square"


def test_without_joints_they_are_shown_the_null_pose_and_the_mask_that_is_there(viton) -> None:
    (stage,) = stages_for(viton, (64, 48), lacking="openpose_json/{}_keypoints.json")
    assert (stage.config.data.pose, stage.config.data.mask) == ("null", "shipped")
    assert any("data.pose=null" in remark for remark in stage.remarks)


def test_a_net_is_named_by_preset_file_or_run(tmp_path: Path) -> None:
    assert stage_of("mini-64", ["data.pose=null"]).config.data.pose == "null"
    (tmp_path / "config.json").write_text(json.dumps(mini_64().to_dict()))
    assert stage_of(str(tmp_path)).config == stage_of(str(tmp_path / "config.json")).config == mini_64()
    with pytest.raises(ConfigError, match=r"no preset 'mini-46'\. Did you mean mini-64\?"):
        stage_of("mini-46")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty holds no config\.json"):
        stage_of(str(tmp_path / "empty"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is no readable config"):
        stage_of(str(tmp_path))


def test_an_unpaired_person_has_no_target_and_no_noised_image(viton) -> None:
    root = viton.write(IDS, unpaired=True).root
    feed = Feed(Stage(name="tiny", config=small()), root, split="train", setting="unpaired")
    row = feed.row((IDS[0], IDS[1]))
    assert [cell.title for cell in row.cells] == ["cloth", "agnostic", "pose"]
    assert any("no target" in note for note in row.notes)


# --- drawing


def test_an_outline_is_drawn_on_the_edge_and_nowhere_else() -> None:
    mask = np.zeros((32, 24), bool)
    mask[8:24, 6:18] = True
    plain = Image.new("RGB", (192, 256), "white")
    drawn = np.asarray(outlined(plain, mask, COMPUTED)).astype(int)
    changed = (drawn != 255).any(axis=2)
    rows, columns = np.nonzero(changed)
    for values, edges in ((rows, (64, 192)), (columns, (48, 144))):
        assert abs(values.min() - edges[0]) <= 3 and abs(values.max() - edges[1]) <= 3
    assert not changed[72:184, 56:136].any()
    assert tuple(drawn[64, 96]) == (255, 47, 179)


def test_a_skeleton_shows_the_visible_joints_alone() -> None:
    plain = Image.new("RGB", (192, 256), "white")
    pose = np.zeros((18, 3))
    assert np.array_equal(skeleton(plain, pose), plain)
    pose[2], pose[3] = (0.25, 0.25, 1), (0.25, 0.5, 1)
    changed = (np.asarray(skeleton(plain, pose)) != 255).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert abs(rows.min() - 64) <= 6 and abs(rows.max() - 128) <= 6 and abs(columns - 48).max() <= 6


def test_missing_joints_are_named_in_pairs_where_both_are() -> None:
    pose = np.ones((18, 3))
    assert missing(pose) == ""
    pose[[9, 12, 17], 2] = 0
    assert missing(pose) == "knees, L ear"


def test_small_pictures_grow_in_whole_squares_and_large_ones_shrink() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (32, 24, 3), dtype=np.uint8)
    grown = np.asarray(enlarged(rgb, (192, 256)))
    assert np.array_equal(grown, rgb.repeat(8, 0).repeat(8, 1))
    assert enlarged(np.zeros((100, 75, 3), np.uint8), (192, 256)).size == (150, 200)
    assert enlarged(np.zeros((1024, 768, 3), np.uint8), (192, 256)).size == (192, 256)
    labels = PALETTE[np.random.default_rng(0).integers(0, 20, (512, 384))]
    shrunk = np.asarray(enlarged(labels, (192, 256), smooth=False)).reshape(-1, 3)
    assert {tuple(colour) for colour in shrunk.tolist()} <= {tuple(colour) for colour in PALETTE.tolist()}


def test_text_is_never_wider_than_its_room() -> None:
    words = (
        "openpose_json/00000_00_keypoints.json is missing and a\u00efl\u00f6\u6587 unusual-name-without-any-break-"
        + "x" * 90
    )
    for size in (13, 16, 22):
        for width in (60, 164, 400):
            assert all(width_of(line, size) <= width for line in wrapped(words, width, size))
            assert all(width_of(line, size) <= width for line in joined(words.split(), width, size))
            assert width_of(fitted(words, width, size), size) <= width
    assert wrapped("image/00001_00.jpg is missing", 110, 14)[0] == "image/"
    assert len(wrapped(words, 60, 13, most=3)) == 3


def test_nothing_reaches_into_the_margins_and_every_row_has_its_room() -> None:
    grey = Image.new("RGB", cell_size(4, 3), "#808080")
    words = ("a long line of facts about this very cell", "and another one of them", "x" * 60)
    cell = Cell(title="a title that is too long for its cell", picture=grey, lines=words)
    row = Row(title="x" * 40, notes=("w " * 40,), cells=(cell,) * 9, size=cell_size(4, 3))
    wide = Row(
        title="square", notes=(), cells=(replace(cell, picture=None, absent="y" * 300),) * 9, size=cell_size(1, 1)
    )
    failed = replace(row, cells=(), failure="z " * 250)
    keys = tuple(Key(title="key", swatches=tuple((f"name {n}", CLOTH) for n in range(count))) for count in (1, 60))
    head = Head(title="t" * 200, facts=(("f" * 300,), ("g h",) * 60), keys=keys, notes=("n " * 300,))
    sheet = np.asarray(draw_sheet(head, [[row, wide, failed], [row]]))
    paper = np.array([int(PAPER[i : i + 2], 16) for i in (1, 3, 5)])
    inked = (sheet != paper).any(axis=2)
    assert not inked[:, :40].any() and not inked[:, -40:].any() and not inked[-30:].any() and not inked[:30].any()


def test_a_pale_picture_is_a_quiet_ground() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    pale = np.asarray(dimmed(Image.fromarray(rgb))).astype(int)
    assert pale.std() < 0.5 * rgb.std() and np.ptp(pale, axis=2).mean() < 0.4 * np.ptp(rgb, axis=2).mean()


# --- the first picture of a run


def test_the_inputs_of_a_run_are_the_same_bytes_each_time_and_touch_no_random_state(viton, tmp_path: Path) -> None:
    source = source_of(viton.write(IDS).root, small("condition_drop=0.5", "noise_aug.train_max=0.5"))
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for name in ("a.png", "b.png"):
        write_inputs(tmp_path / name, source, 8)
        torch.manual_seed(1)
        torch.random.set_rng_state(before[0])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    write_inputs(tmp_path / "a.png", source, 2)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    with Image.open(tmp_path / "a.png") as two, Image.open(tmp_path / "b.png") as three:
        assert two.height < three.height


def test_square_nets_and_the_refining_one_have_inputs_to_show(viton, tmp_path: Path) -> None:
    config = preset("paper-256")
    data = replace(config.data, cloth_kind="flat")
    net = replace(config, data=data, resolution=(64, 64), batch_size=2)
    write_inputs(tmp_path / "inputs.png", source_of(viton.write(IDS).root, net), 2)
    assert (tmp_path / "inputs.png").stat().st_size > 10_000
