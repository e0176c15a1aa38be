"""The front door: `drape demo`, `try-on`, `info` and the pipeline behind them, with a tiny untrained net."""

import base64
import html
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drape import bundled, presets
from drape.checkpoint import save_weights
from drape.cli import data
from drape.cli.main import COMMANDS, main
from drape.config import RunConfig
from drape.errors import ConfigError, DataError
from drape.nets.config import ParallelUNetConfig
from drape.nets.parallel_unet import ParallelUNet
from drape.pipeline import SETTINGS, TryOnPipeline, find_cloth, find_person
from drape.pipeline.compose import blend_share, compose
from drape.pipeline.inputs import together
from drape.pipeline.tryon import sampling
from drape.sampling import SamplingConfig

QUICK = SamplingConfig(steps=2, guidance=1.5)
REAL_ASSETS = bundled.ASSETS


TINY_NET = ParallelUNetConfig(
    channels=(16, 32), repeats=(1, 1),
    cloth_channels=(16, 16), cloth_encoder_repeats=(1, 1), cloth_decoder_repeats=(0, 0),
    self_attention=(1,), encoder_cross=((1, 1),), decoder_cross=((1, 1),), head_dim=16, embedding_dim=32, patch=2,
    skips="add-scaled", shortcut="identity", cloth_sees="cloth", places="body", pose_maps="limbs",
)  # fmt: skip
TINY = RunConfig(name="tiny", net=TINY_NET, resolution=(32, 24))


def lively(config: RunConfig) -> dict[str, torch.Tensor]:
    """Untrained weights in which nothing is zero, so that every condition shows in the output."""
    torch.manual_seed(0)
    net = ParallelUNet(config.net)
    return {name: t if t.any() else 0.05 * torch.randn_like(t) for name, t in net.state_dict().items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny net's weights, in the folder of a run."""
    path = tmp_path_factory.mktemp("runs") / "tiny" / "weights.safetensors"
    save_weights(path, lively(TINY), TINY, {"preset": "tiny", "licence": "Apache-2.0", "images_seen": 0})
    return path


@pytest.fixture(scope="module")
def pipeline(weights: Path) -> TryOnPipeline:
    return TryOnPipeline.from_pretrained(weights, "cpu")


@pytest.fixture(scope="module")
def assets(people: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Assets like the bundled ones: the four people of a test split, two of their clothes, two weights."""
    root = tmp_path_factory.mktemp("assets")
    (root / "people").mkdir()
    for name in ("test", "test_pairs.txt", "dataset.json"):
        (root / "people" / name).symlink_to(people / name)
    (root / "clothes").mkdir()
    for name, identity in (("dots", "00012_00"), ("plain <tee>", "00013_00")):
        (root / "clothes" / f"{name}.jpg").symlink_to(people / "test" / "cloth" / f"{identity}.jpg")
        (root / "clothes" / f"{name}_mask.png").symlink_to(people / "test" / "cloth-mask" / f"{identity}.jpg")
    words = {"source": "made by code", "licence": "CC0-1.0"}
    (root / "clothes" / "clothes.json").write_text(json.dumps({"dots": words, "plain <tee>": words}))
    (root / "weights").mkdir()
    for name in ("mini-64", "small-128"):
        (root / "weights" / f"{name}.safetensors").symlink_to(weights)
    return root


@pytest.fixture(autouse=True)
def use_assets(assets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundled, "ASSETS", assets)
    monkeypatch.chdir(tmp_path)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


# --- the demo


@pytest.fixture(scope="module")
def demo(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a demo of four people in two clothes wrote."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundled, "ASSETS", assets)
        assert main(["demo", "--out", str(out), "--steps", "2", "--device", "cpu"]) == 0
    return out


def test_the_demo_prints_time_per_image_and_seed_and_the_two_files_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--steps", "1", "--guidance", "1", "--seed", "5", "--people", "00012_00"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"\d\.\d\d s per image", "\n".join(lines))
    assert lines[-3].split() == ["seed", "5"]
    assert [Path(line) for line in lines[-2:]] == [Path("demo/sheet.png"), Path("demo/index.html")]
    assert all((tmp_path / line).is_file() for line in lines[-2:])


def test_the_sheet_has_a_row_for_each_person_and_a_column_for_each_cloth(demo: Path) -> None:
    with Image.open(demo / "sheet.png") as sheet:
        assert sheet.width > 3 * 240 and sheet.height > 5 * 320
    assert sorted(path.name for path in demo.iterdir()) == ["index.html", "sheet.png"]


def test_the_page_needs_nothing_but_itself(demo: Path) -> None:
    page = (demo / "index.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href|data-raw)="([^"]*)"|url\(([^)]*)\)', page)
    pictures = [a or b for a, b in sources if (a or b) not in ('" + image.src + "', '" + look.dataset.raw + "')]
    assert len(pictures) >= 4 * 2 * 2 + 4 + 2
    assert all(each.startswith("data:image/") or each == "var(--photo)" for each in pictures)
    assert "http:" not in page and "https:" not in page and "$" not in page.replace("$summary", "")


def test_the_page_says_what_was_done_with_what(demo: Path) -> None:
    page = (demo / "index.html").read_text(encoding="utf-8")
    for fact in ("mini-64", "32x24", "2 steps", "seed", "s per image", "4 people in 2 clothes", "made by code"):
        assert fact in page, fact
    assert len(re.findall(r'alt="[^"]+ in [^"]+"', page)) == 8


def test_the_command_on_the_page_makes_its_first_picture_again(demo: Path, tmp_path: Path) -> None:
    page = (demo / "index.html").read_text(encoding="utf-8")
    command = re.search(r"<code>(.*?)</code>", page, flags=re.DOTALL)
    picture = re.search(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    assert command and picture
    assert main([*shlex.split(html.unescape(command[1]))[1:], "--device", "cpu"]) == 0
    Image.open(tmp_path / "out.png").save(tmp_path / "out.jpg", quality=90, subsampling=0)
    (tmp_path / "shown.jpg").write_bytes(base64.b64decode(picture[1]))
    assert np.abs(pixels(tmp_path / "out.jpg") - pixels(tmp_path / "shown.jpg")).mean() < 0.5


def test_names_on_the_page_are_text_and_never_markup(demo: Path) -> None:
    page = (demo / "index.html").read_text(encoding="utf-8")
    assert "<tee>" not in page and "plain &lt;tee&gt;" in page


def test_the_demo_takes_people_and_clothes_from_data_sets_and_photos(
    people: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = people / "test" / "cloth" / "00014_00.jpg"
    arguments = ["--people", f"{people}:00003_00,00012_00", "--clothes", "dots", "--clothes", str(photo)]
    assert main(["demo", *arguments, "--weights", str(weights.parent), "--steps", "1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["people"], record["clothes"], record["steps"]) == (2, 2, 1)
    assert all(Path(file).is_file() for file in record["files"])


def test_without_weights_the_demo_says_how_to_train_them(
    assets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("people", "clothes"):
        (tmp_path / name).symlink_to(assets / name)
    monkeypatch.setattr(bundled, "ASSETS", tmp_path)
    assert main(["demo"]) == 2
    assert "drape train mini-64" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


# --- try-on


def test_try_on_prints_time_seed_and_the_picture_last(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["try-on", "--person", "00012_00", "--cloth", "dots", "--out", "new/out.png", "--steps", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "s per image" in lines[-3] and lines[-2] == "seed 0" and Path(lines[-1]) == Path("new/out.png")
    with Image.open(tmp_path / "new" / "out.png") as picture:
        assert picture.size == (48, 64)


def test_the_same_seed_gives_the_same_file_and_another_seed_another(tmp_path: Path) -> None:
    base = ["try-on", "--person", "00012_00", "--cloth", "dots", "--steps", "2", "--device", "cpu"]
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main([*base, "--seed", seed, "--out", f"{name}.png"]) == 0
    first, again, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert first == again != other


def test_try_on_writes_over_a_picture_and_leaves_it_alone_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jpg"
    out.write_bytes(b"old")
    command = ["try-on", "--person", "00012_00", "--cloth", "dots", "--out", str(out), "--steps", "1"]

    def full(self: Image.Image, path: Path) -> None:
        path.write_bytes(b"half a pic")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        assert main(command) == 2
    assert "No space left" in capsys.readouterr().err
    assert out.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["out.jpg"]
    assert main(command) == 0
    assert pixels(out).shape == (64, 48, 3)


def test_any_photo_of_a_cloth_will_do(tmp_path: Path, pipeline: TryOnPipeline) -> None:
    photo = np.full((300, 200, 3), (90, 120, 60), dtype=np.uint8)
    photo[80:240, 50:150] = (200, 40, 40)
    Image.fromarray(photo).save(tmp_path / "my shirt.png")
    cloth = find_cloth(str(tmp_path / "my shirt.png"), pipeline.config)
    assert cloth.name == "my shirt" and cloth.image.shape == (3, 32, 24) and cloth.kind == "flat"
    red, green, blue = cloth.image[:, 16, 12]
    assert red > 0.3 and green < -0.3 and blue < -0.3
    assert cloth.image[:, 0, 0].min() > 0.9  # laid on white
    assert pipeline.dress("00012_00", cloth, how=QUICK).image.size == (48, 64)


def test_a_plain_photo_of_a_person_is_refused_with_what_is_supported(
    people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = str(people / "test" / "image" / "00012_00.jpg")
    assert main(["try-on", "--person", photo, "--cloth", "dots", "--out", "out.png"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "plain photo" in line and "FOLDER:ID" in line and "00012_00" in line


# --- the pipeline


def test_an_image_does_not_depend_on_its_batch(pipeline: TryOnPipeline) -> None:
    samples = [
        together(find_person(person, pipeline.config), find_cloth(cloth, pipeline.config))
        for person in bundled.people()
        for cloth in bundled.clothes()
    ]
    seeds = list(range(len(samples)))
    together_ = pipeline(samples, seeds=seeds, steps=2)
    assert together_.shape == (8, 3, 32, 24) and together_.abs().max() <= 1
    for index in (0, 3, 7):
        alone = pipeline([samples[index]], seeds=[seeds[index]], steps=2)
        assert (alone[0] - together_[index]).abs().max() < 1e-3


def test_every_condition_and_the_seed_change_the_image(pipeline: TryOnPipeline) -> None:
    people_, clothes = (find_person(n, pipeline.config) for n in bundled.people()[:2]), bundled.clothes()
    first, second = people_
    cloths = [find_cloth(name, pipeline.config) for name in clothes]
    base = pipeline([together(first, cloths[0])], seeds=[1], steps=2)
    for changed in (
        pipeline([together(second, cloths[0])], seeds=[1], steps=2),
        pipeline([together(first, cloths[1])], seeds=[1], steps=2),
        pipeline([together(first, cloths[0])], seeds=[2], steps=2),
        pipeline([together(first, cloths[0])], seeds=[1], steps=3),
        pipeline([together(first, cloths[0])], seeds=[1], steps=2, guidance=4.0),
        pipeline([together(first, cloths[0])], seeds=[1], steps=2, sampler="ddpm"),
    ):
        assert (changed - base).abs().max() > 1e-4


def test_a_cloth_is_encoded_once_for_all_who_wear_it(pipeline: TryOnPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode = pipeline.net.encode_cloth

    def counted(conditions, log_snr=None):
        seen.append(len(conditions))
        return encode(conditions, log_snr)

    monkeypatch.setattr(pipeline.net, "encode_cloth", counted)
    pipeline.dress_all(bundled.people(), bundled.clothes(), how=QUICK)
    assert seen == [2, 1]  # two clothes on four people, and one null state


def test_dress_all_equals_dress_one_by_one(pipeline: TryOnPipeline) -> None:
    rows = pipeline.dress_all(bundled.people()[:2], bundled.clothes(), seed=9, how=QUICK)
    for row, person in zip(rows, bundled.people()[:2], strict=True):
        for dressed, cloth in zip(row, bundled.clothes(), strict=True):
            alone = pipeline.dress(person, cloth, seed=9, how=QUICK)
            assert (dressed.person.name, dressed.cloth.name) == (person, cloth)
            assert np.abs(np.asarray(alone.image, dtype=int) - np.asarray(dressed.image, dtype=int)).max() <= 1


def test_progress_is_told_from_the_first_step_to_the_last(
    pipeline: TryOnPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drape.pipeline.tryon.BATCH", 3)
    told: list[tuple[int, int]] = []
    pipeline.dress_all(
        bundled.people()[:2], bundled.clothes(), how=QUICK, on_images=lambda done, total: told.append((done, total))
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_outside_the_mask_and_its_seam_the_photo_is_kept_to_the_pixel(
    people: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    assert main(["try-on", "--person", f"{people}:00013_00", "--cloth", "dots", "--out", str(out), "--steps", "2"]) == 0
    person = find_person(f"{people}:00013_00", TINY)
    changed = (pixels(out) != person.photo.astype(int)).any(axis=2)
    seam = blend_share(person.mask, seam=0.75 * 64 / 32) > 0
    assert changed[person.mask].mean() > 0.9
    assert not changed[~seam].any()


def test_the_old_cloth_never_shows_in_the_result(pipeline: TryOnPipeline) -> None:
    """Paint the person's old cloth in a signal colour, keep everything the net is shown: the result must not change."""
    person = find_person("00012_00", pipeline.config)
    photo = person.photo.copy()
    photo[person.mask & ~person.background] = (255, 0, 255)
    result = pipeline.dress(person, "dots", how=QUICK).image
    assert np.array_equal(
        np.asarray(result), np.asarray(pipeline.dress(replace(person, photo=photo), "dots", how=QUICK).image)
    )


def test_the_seam_is_smooth_and_lies_outside() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:30, 10:30] = True
    share = blend_share(mask, seam=4.0)
    assert (share[mask] == 1).all() and share[0, 0] == 0
    steps = np.diff(share[20, :11])
    assert (steps >= 0).all() and steps.max() < 0.5
    photo, nowhere = np.full((40, 40, 3), 7, np.uint8), np.zeros_like(mask)
    assert compose(photo, ~nowhere, nowhere, torch.zeros(3, 10, 10)).getpixel((5, 5)) == (128, 128, 128)


def test_background_is_kept_only_where_the_net_drew_the_same() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(110, 130, (80, 60, 3), dtype=np.uint8)
    everywhere = np.ones((80, 60), dtype=bool)
    left = everywhere.copy()
    left[:, 30:] = False
    alike, unlike = torch.full((3, 20, 15), 120 / 127.5 - 1), torch.full((3, 20, 15), 0.9)
    same = np.asarray(compose(photo, everywhere, left, alike))
    assert (same[:, 4:24] == photo[:, 4:24]).all()  # background, and the net agrees
    assert (same[:, 34:] == 120).all()  # the person: the net's, whatever the photo shows
    assert (np.asarray(compose(photo, everywhere, left, unlike)) == 242).all()  # a sleeve where background was


def test_records_in_another_range_or_size_are_refused_with_the_numbers(pipeline: TryOnPipeline) -> None:
    sample = together(find_person("00012_00", pipeline.config), find_cloth("dots", pipeline.config))
    assert sample.agnostic is not None and sample.cloth is not None
    zero_to_one = replace(sample, agnostic=(sample.agnostic + 1) / 2, cloth=(sample.cloth + 1) / 2)
    with pytest.raises(DataError, match=r"none below 0.*\* 2 - 1"):
        pipeline([zero_to_one], seeds=[0])
    with pytest.raises(DataError, match="expected 32x24"):
        pipeline([replace(sample, cloth=torch.zeros(3, 64, 48), cloth_mask=None)], seeds=[0])
    with pytest.raises(DataError, match="no cloth"):
        pipeline([replace(sample, cloth=None)], seeds=[0])
    with pytest.raises(ConfigError, match="2 seeds for 1 image"):
        pipeline([sample], seeds=[0, 1])


def test_a_white_cloth_is_no_error(pipeline: TryOnPipeline) -> None:
    cloth = find_cloth("dots", pipeline.config)
    white = replace(cloth, image=torch.full_like(cloth.image, 0.9))
    assert pipeline.dress("00012_00", white, how=QUICK).image.size == (48, 64)


def test_settings_run_from_fast_to_slow_and_options_win_over_them() -> None:
    costs = [how.steps * (1 if how.guidance == 1 else 2) for how in SETTINGS.values()]
    assert list(SETTINGS) == ["quick", "standard", "fine", "paper-256", "paper-128"] and costs == sorted(costs)
    for name, steps in (("paper-128", 256), ("paper-256", 128)):  # [Zhu et al. 2023, sec. 4]
        assert SETTINGS[name] == SamplingConfig(sampler="ddpm", steps=steps, guidance=2.0)
    assert sampling("fine", steps=3, guidance=2.0) == replace(SETTINGS["fine"], steps=3, guidance=2.0)


# --- what is bundled


def test_best_is_the_larger_net_but_on_a_cpu_the_light_one_for_a_whole_sheet() -> None:
    assert bundled.best_weights(has_gpu=True, images=36) == "small-128"
    assert bundled.best_weights(has_gpu=False, images=1) == "small-128"
    assert bundled.best_weights(has_gpu=False, images=36) == "mini-64"


def test_best_is_what_there_is(assets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mini-64.safetensors.index.json").write_text("{}")
    (tmp_path / "weights" / "mini-64-00001-of-00001.safetensors").write_text("")
    monkeypatch.setattr(bundled, "ASSETS", tmp_path)
    assert list(bundled.weights()) == ["mini-64"]
    assert bundled.best_weights(has_gpu=True) == "mini-64"


def test_sharded_weights_dress_like_whole_ones(tmp_path: Path) -> None:
    config = replace(TINY, net=replace(TINY_NET, channels=(48, 96), cloth_channels=(48, 48)))
    whole = save_weights(tmp_path / "whole.safetensors", lively(config), config, {})
    index = save_weights(tmp_path / "shards" / "x.safetensors", lively(config), config, {}, max_file_mb=1)
    assert index.name.endswith(".index.json") and len(list(index.parent.iterdir())) > 2
    pictures = [
        TryOnPipeline.from_pretrained(path, "cpu").dress("00012_00", "dots", how=QUICK).image.tobytes()
        for path in (whole, index, index.parent)
    ]
    assert pictures[0] == pictures[1] == pictures[2]


@pytest.mark.skipif(not (REAL_ASSETS / "people").is_dir(), reason="people and clothes are not bundled yet")
def test_the_bundled_people_and_clothes_are_small_whole_and_licensed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "ASSETS", REAL_ASSETS)
    files = [path for part in ("people", "clothes") for path in (REAL_ASSETS / part).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert len(bundled.people()) >= 6 and len(bundled.clothes()) >= 6
    assert "CC0" in (REAL_ASSETS / "LICENCES.md").read_text(encoding="utf-8")
    config = presets.mini_64()
    for name in bundled.people():
        person = find_person(name, config)
        assert min(person.photo.shape[:2]) >= 192 and 0.1 < person.mask.mean() < 0.7
        assert person.record.licence == "CC0-1.0" and person.record.pose is not None and person.record.pose.any()
    for name in bundled.clothes():
        cloth = find_cloth(name, config)
        assert cloth.licence == "CC0-1.0" and 0.1 < float(cloth.mask.mean()) < 0.9


@pytest.mark.skipif(not (REAL_ASSETS / "weights").is_dir(), reason="no weights are bundled yet")
def test_bundled_weights_load_and_say_where_they_come_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundled, "ASSETS", REAL_ASSETS)
    for name, path in bundled.weights().items():
        assert max(file.stat().st_size for file in path.parent.glob(f"{name}*")) <= 15 * 2**20
        pipeline = TryOnPipeline.from_pretrained(name, "cpu")
        person, cloth = bundled.people()[0], bundled.clothes()[0]
        assert pipeline.dress(person, cloth, how=replace(QUICK, steps=1)).image.height >= 192
        assert main(["info", name, "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert record["licence"] == "Apache-2.0" and record["provenance"]["images_seen"] > 0


# --- info


@pytest.mark.parametrize(("name", "parameters"), [("paper-128", 1.13e9), ("paper-256", 1.06e9)])
def test_info_counts_the_nets_of_the_paper(name: str, parameters: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", name, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["kind"] == "preset" and abs(record["parameters"] / parameters - 1) < 0.02
    assert record["flops_forward"] == record["flops_person"] + record["flops_cloth"] > 1e12
    assert record["training_state_gib"] == pytest.approx(5 * record["weights_gib"], rel=1e-3)
    assert record["resolution"] == record["config"]["resolution"]


def test_info_of_weights_tells_licence_and_provenance(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(weights.parent), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["kind"], record["licence"]) == ("weights", "Apache-2.0")
    assert record["provenance"] == {"preset": "tiny", "images_seen": 0}
    tensors = lively(TINY)
    assert record["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert main(["info", str(weights)]) == 0
    assert "licence Apache-2.0" in capsys.readouterr().out


def test_info_without_a_name_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "paper-256" in out and "00012_00" in out and "dots" in out


def test_info_of_a_preset_whose_weights_are_bundled_is_about_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "mini-64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "weights"


# --- the help


def examples() -> list[tuple[str, str]]:
    lines = []
    files = {name: module for name, (module, _) in COMMANDS.items() if name != "data"}
    files |= {f"data {name}": module for name, (module, _) in data.COMMANDS.items()}
    for command, module in files.items():
        text = (Path(bundled.__file__).parent / "cli" / (module.rpartition(".")[2] + ".py")).read_text(encoding="utf-8")
        block = re.search(r'^EXAMPLES = """\n(.*?)"""', text, flags=re.MULTILINE | re.DOTALL)
        assert block, f"{command} has no examples"
        lines += [(command, line) for line in block[1].splitlines()]
    return lines


CHEAP = {
    "demo": ["--steps", "1", "--guidance", "1"],
    "try-on": ["--steps", "1", "--guidance", "1"],
    "mannequin": ["--people", "2", "--test", "2", "--size", "64x48", "--workers", "1"],
    "train": ["--dry-run"],
    "info": [],
}
"""What makes an example of a command cheap enough to run here; the last of two equal options counts."""

ABOUT_RUNS = ("plot", "sweep", "ema", "doctor", "data show", "data check", "data pack")
"""Commands whose examples need long runs, or much data: here they must be understood, and may then miss them."""


@pytest.mark.skipif(not (REAL_ASSETS / "people").is_dir(), reason="people and clothes are not bundled yet")
@pytest.mark.parametrize(("command", "line"), examples())
def test_the_examples_in_the_help_run(
    command: str,
    line: str,
    people: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bundled, "ASSETS", REAL_ASSETS)
    monkeypatch.setattr(bundled, "weights", lambda: {"mini-64": weights, "small-128": weights})
    (tmp_path / "zalando-hd-resized").symlink_to(people)
    (tmp_path / "photos").symlink_to(people / "test" / "image")
    (tmp_path / "my-shirt.jpg").symlink_to(people / "test" / "cloth" / "00012_00.jpg")
    if "--check" in line:
        (tmp_path / "people").symlink_to(people)
    for name in ("mini", "hd"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "weights.safetensors").symlink_to(weights)
    if command in ABOUT_RUNS:
        assert main(shlex.split(line)[1:]) in (0, 2)
        assert "--help" not in capsys.readouterr().err, "the example was not understood"
        return
    assert main([*shlex.split(line)[1:], *CHEAP[command]]) == 0
