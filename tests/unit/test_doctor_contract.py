"""What the net is shown: each fault, planted into drape's functions or into the files, is named; nothing else is."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from drape.config import override
from drape.data import compact, joined, loader, reader, viton_hd
from drape.data.sample import TryOnBatch
from drape.doctor import patient as patients
from drape.doctor.contract import FOLLOWS, NAMES, check_contract
from drape.doctor.finding import Finding
from drape.doctor.patient import Patient, patient_of
from drape.doctor.thresholds import Thresholds
from drape.mannequin.dataset import Recipe, write_dataset
from drape.pipeline import inputs, tryon
from drape.presets import tiny
from drape.training import loss, sources, validation

Patch = pytest.MonkeyPatch
QUICK = Thresholds(samples=64, files=24, dressed=2)
SHIPPED = ("data.mask=shipped",)
ALONE = ("data.mask=shipped", "data.pose=null")
SQUARE = ("resolution=[32,32]", "data.fit=square", "data.agnostic=paper", "diffusion.mask_weight=1")
OTHERWISE = ("diffusion.target=eps", "diffusion.schedule=linear", "data.flip=0", "cloth_resolution=[64,48]")
REFINES = ("net.low_res=true", "noise_aug.train_max=1.0", "noise_aug.sample=0.1")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three dozen mannequins at twice the size of the net's pictures, so that everything is resized."""
    out = tmp_path_factory.mktemp("contract") / "people"
    write_dataset(out, Recipe(people=36, test=0, seed=11, size=(64, 48), textures=None, worn=False))
    return out


def examined(root: Path, settings: tuple[str, ...] = (), thresholds: Thresholds = QUICK) -> dict[str, Finding]:
    """The findings by name."""
    patient = patient_of(override(tiny(), settings), root, device="cpu", thresholds=thresholds)
    found = check_contract(patient)
    assert len({finding.name for finding in found}) == len(found)
    assert {finding.name for finding in found} <= set(NAMES)
    return {finding.name: finding for finding in found}


def failed(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.status == "FAIL"}


def not_ok(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.status != "ok"}


# --- planted into drape's functions -----------------------------------------------------------------------------------

Plant = Callable[[Patch], None]


def field_as(name: str, change: Callable[[Tensor, Any], Tensor]) -> Plant:
    """A field of every record is made in another way: change(as it was, bytes of the sample)."""
    right = compact._expanded

    def plant(patch: Patch) -> None:
        def wrong(arrays: Any, field: str) -> Tensor:
            return change(right(arrays, field), arrays) if field == name else right(arrays, field)

        patch.setattr(compact, "_expanded", wrong)

    return plant


def read_as(change: Callable[[Callable[[Any], Tensor], Any], Tensor], *names: str) -> Plant:
    """Something of a pair is read in another way: change(the right way, the pair's files)."""

    def plant(patch: Patch) -> None:
        for name in names:
            right = reader._READ[name]
            patch.setitem(reader._READ, name, lambda files, right=right: change(right, files))

    return plant


def of_the_next(right: Callable[[Any], Tensor], files: Any) -> Tensor:
    """What belongs to the next person of the list, and to the next cloth."""
    people, clothes = zip(*files.reader.ids, strict=True)
    person = people[(people.index(files.person_id) + 1) % len(people)]
    cloth = clothes[(clothes.index(files.cloth_id) + 1) % len(clothes)]
    return right(reader.Files(files.reader, person, cloth))


def batch_as(change: Callable[[TryOnBatch], TryOnBatch]) -> Plant:
    def plant(patch: Patch) -> None:
        right = compact.to_batch
        for module in (joined, sources, loader):
            patch.setattr(module, "to_batch", lambda *given: change(right(*given)))

    return plant


def mirrored(*names: str) -> Plant:
    """Only these are mirrored."""
    right = loader.mirror

    def wrong(batch: TryOnBatch, where: Tensor) -> TryOnBatch:
        well = right(batch, where)
        return replace(batch, **{name: getattr(well, name) for name in names})

    return lambda patch: patch.setattr(sources, "mirror", wrong)


def sides_kept(patch: Patch) -> None:
    def wrong(pose: Tensor) -> Tensor:
        return torch.cat([(1 - pose[..., :1]) * pose[..., 2:], pose[..., 1:]], dim=-1)

    patch.setattr(loader, "mirror_pose", wrong)


def nearest(rgb: Any, size: tuple[int, int]) -> Any:
    return np.asarray(Image.fromarray(rgb).resize(size[::-1], Image.Resampling.NEAREST))


def smaller(mask: Any, size: tuple[int, int]) -> Any:
    """A mask that ends above the waist."""
    rows = np.flatnonzero(mask.any(axis=1))
    cut = mask.copy()
    cut[(rows[0] + 2 * rows[-1]) // 3 :] = False
    return RIGHT_MASK(cut, size)


RIGHT_MASK = reader.shrink_mask


def others_mask(patch: Patch) -> None:
    right = viton_hd.VitonHD.hidden
    patch.setattr(viton_hd.VitonHD, "hidden", lambda self, files: of_the_next(lambda other: right(self, other), files))


def loss_mask_inverted(patch: Patch) -> None:
    right = loss._weighted

    def wrong(config: Any, batch: TryOnBatch, *rest: Any) -> Any:
        return right(config, replace(batch, agnostic_mask=1 - batch.need("agnostic_mask")), *rest)

    patch.setattr(loss, "_weighted", wrong)


def conditions_as(module: Any, name: str, change: Callable[[Any], Any]) -> Plant:
    def plant(patch: Patch) -> None:
        right = getattr(module, name)
        patch.setattr(module, name, lambda *given, **named: change(right(*given, **named)))

    return plant


def split_leaks(patch: Patch) -> None:
    right = sources.split

    def wrong(ids: Any, config: Any) -> Any:
        trained, held = right(ids, config)
        return sorted(trained + held), held

    for module in (sources, patients):
        patch.setattr(module, "split", wrong)


def validates_on_training(patch: Patch) -> None:
    def wrong(source: sources.Source) -> list[int]:
        before = len(source.joined) - len(source.readers[-1])
        return [index - before for index in source.sides[0][-4:]]

    patch.setattr(sources.Source, "validation_indices", wrong)


def sampled_from(kind: str) -> Plant:
    """The pipeline reads its pictures in another way than training does."""

    class Other(viton_hd.VitonHD):
        def compact(self, index: int) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                if kind == "nearest":
                    patch.setattr(reader, "resize_rgb", nearest)
                else:
                    right = reader.read_rgb
                    patch.setattr(reader, "read_rgb", lambda path: np.ascontiguousarray(right(path)[..., ::-1]))
                return super().compact(index)

    return lambda patch: patch.setattr(inputs, "VitonHD", Other)


def paint(part: float) -> Plant:
    """The cloth shines through the gray."""

    def wrong(agnostic: Tensor, arrays: Any) -> Tensor:
        person = compact.to_signed(arrays.get("original", arrays["person"]))
        return agnostic + part * arrays["agnostic_mask"].float() * person

    return field_as("agnostic", wrong)


def jittered(patch: Patch) -> None:
    """The brightness of the clothes changes in the batches, and of nothing else."""
    right = loader.mirror

    def wrong(batch: TryOnBatch, where: Tensor) -> TryOnBatch:
        well = right(batch, where)
        shifts = torch.linspace(-0.5, 0.5, len(well)).reshape(-1, 1, 1, 1)
        return replace(well, cloth=(0.5 * well.need("cloth") + shifts).clamp(-1, 1))

    patch.setattr(sources, "mirror", wrong)


def a_quarter(patch: Patch) -> None:
    """Three quarters of the pairs never come."""

    def wrong(*, num_samples: int, **given: int) -> Tensor:
        return loader.order(num_samples=max(1, num_samples // 4), **given)

    patch.setattr(sources, "order", wrong)


def gray(right: Callable[[Any], Tensor], files: Any) -> Tensor:
    found = right(files)
    return found.float().mean(dim=0, keepdim=True).expand(3, -1, -1).to(found.dtype).clone()


def garments(cloth: Tensor) -> Tensor:
    """(1, h, w) where a picture is not of the colour of its upper left pixel."""
    return ((cloth - cloth[:, :1, :1]).abs() > 0.1).any(dim=0, keepdim=True)


def cut(cloth: Tensor, arrays: Any) -> Tensor:
    """The wrong side of its mask is painted."""
    return torch.where(garments(cloth), 0.5, cloth)


CODE: dict[str, tuple[Plant, set[str], tuple[str, ...]]] = {
    "cloth in [0, 1]": (field_as("cloth", lambda x, _: (x + 1) / 2), {"range"}, ()),
    "people in [0, 1]": (lambda patch: patch.setattr(compact, "to_signed", lambda x: x / 255), {"range"}, ()),
    "clothes cut out of their pictures": (field_as("cloth", cut), {"range"}, ()),
    "half the contrast": (field_as("person", lambda x, _: x / 2), {"range"}, ()),
    "gray masks": (field_as("agnostic_mask", lambda x, _: 0.7 * x), {"range"}, ()),
    "BGR clothes": (read_as(lambda right, files: right(files).flip(0), "cloth"), {"colour order"}, ()),
    "BGR people": (read_as(lambda right, files: right(files).flip(0), "person", "original"), {"colour order"}, ()),
    "clothes in gray": (read_as(gray, "cloth"), {"colour order"}, ()),
    "picked pixels": (lambda patch: patch.setattr(reader, "resize_rgb", nearest), {"resize"}, ()),
    "cloth moved": (read_as(lambda right, files: right(files).roll(6, -1), "cloth"), {"files"}, ()),
    "agnostic of somebody else": (
        batch_as(lambda b: replace(b, agnostic=b.need("agnostic").roll(1, 0))),
        {"agnostic"},
        (),
    ),
    "thin paint": (paint(0.1), {"agnostic", "leak"}, ()),
    "mask too short": (lambda patch: patch.setattr(reader, "shrink_mask", smaller), {"leak"}, ()),
    "mask inverted": (
        lambda patch: patch.setattr(reader, "shrink_mask", lambda m, s: RIGHT_MASK(~m, s)),
        {"mask", "leak"},
        (),
    ),
    "empty masks": (
        lambda patch: patch.setattr(reader, "shrink_mask", lambda m, s: np.zeros(s, bool)),
        {"mask", "leak"},
        (),
    ),
    "full masks": (lambda patch: patch.setattr(reader, "shrink_mask", lambda m, s: np.ones(s, bool)), {"mask"}, ()),
    "mask of somebody else": (others_mask, {"mask"}, ()),
    "loss weighs the outside": (loss_mask_inverted, {"mask"}, ()),
    "x and y exchanged": (read_as(lambda right, files: right(files)[:, [1, 0, 2]], "pose"), {"pose"}, ()),
    "joints in pixels": (read_as(lambda right, files: right(files) * torch.tensor([24, 32, 1]), "pose"), {"pose"}, ()),
    "pose of somebody else": (read_as(of_the_next, "pose"), {"pose"}, ()),
    "no joints": (read_as(lambda right, files: right(files) * 0, "pose"), {"pose"}, ()),
    "only people mirrored": (mirrored("person"), {"flip"}, ()),
    "all but the joints mirrored": (mirrored("person", "cloth", "agnostic", "agnostic_mask"), {"flip"}, ()),
    "all but the mask mirrored": (mirrored("person", "cloth", "agnostic", "pose"), {"flip"}, ()),
    "left stays left in the mirror": (sides_kept, {"flip"}, ()),
    "reader mirrors people": (read_as(lambda right, files: right(files).flip(-1), "person", "original"), {"flip"}, ()),
    "clothes shuffled in the batch": (
        batch_as(lambda b: replace(b, cloth=b.need("cloth").roll(1, 0))),
        {"pairing"},
        (),
    ),
    "cloth of the next pair": (read_as(of_the_next, "cloth"), {"pairing"}, ()),
    "counterfactual shows the original": (read_as(lambda _, files: files.image("person"), "person"), {"pairing"}, ()),
    "one cloth for all": (
        batch_as(lambda b: replace(b, cloth=b.need("cloth")[:1].expand(len(b), -1, -1, -1) * 1)),
        {"variety"},
        (),
    ),
    "always the same batch": (
        lambda patch: patch.setattr(sources, "order", lambda **k: loader.order(**{**k, "images_seen": 0})),
        {"variety"},
        (),
    ),
    "a quarter of the pairs": (a_quarter, {"variety"}, ()),
    "brightness of clothes alone": (jittered, {"batches"}, ()),
    "everybody trained on": (split_leaks, {"overlap"}, ()),
    "validated on training pairs": (validates_on_training, {"overlap"}, ()),
    "cloth severed in the loss": (
        conditions_as(loss, "conditions_of", lambda c: replace(c, cloth=c.cloth * 0)),
        {"net inputs"},
        (),
    ),
    "clothes rolled in the loss": (
        conditions_as(loss, "conditions_of", lambda c: replace(c, cloth=c.cloth.roll(1, 0))),
        {"net inputs"},
        (),
    ),
    "try-on picks pixels": (sampled_from("nearest"), {"sampling inputs"}, ()),
    "try-on decodes BGR": (sampled_from("bgr"), {"sampling inputs"}, ()),
    "try-on resizes photos otherwise": (
        lambda patch: patch.setattr(inputs, "resize_rgb", nearest),
        {"sampling inputs"},
        (),
    ),
    "try-on gives cloth in [0, 1]": (
        conditions_as(tryon, "together", lambda r: replace(r, cloth=(r.cloth + 1) / 2)),
        {"sampling inputs"},
        (),
    ),
    "validation sees no cloth": (
        conditions_as(validation, "inference_conditions", lambda c: replace(c, cloth=c.cloth * 0)),
        {"sampling inputs"},
        (),
    ),
    "low_res in [0, 1]": (
        conditions_as(sources, "with_low_res", lambda b: replace(b, low_res=(b.need("low_res") + 1) / 2)),
        {"low res"},
        REFINES,
    ),
    "low_res picks pixels": (
        conditions_as(sources, "with_low_res", lambda b: replace(b, low_res=b.need("person")[:, :, ::2, ::2] * 1)),
        {"low res"},
        REFINES,
    ),
    "validation's low_res in [0, 1]": (
        conditions_as(validation, "with_low_res", lambda b: replace(b, low_res=(b.need("low_res") + 1) / 2)),
        {"sampling inputs"},
        REFINES,
    ),
    "labelled noise is never added": (
        lambda patch: patch.setattr("drape.conditioning.add_noise", lambda image, *_: image),
        {"condition noise"},
        REFINES,
    ),
}
"""What is planted; the findings that fail, all others being ok or warning that they follow; settings."""


QUICKLY = {
    "cloth in [0, 1]", "BGR clothes", "thin paint", "mask inverted", "pose of somebody else", "only people mirrored",
    "clothes shuffled in the batch", "everybody trained on", "try-on picks pixels", "no parse, masks inverted",
}  # fmt: skip
"""One fault of each kind; the others take a second each and run with the slow tests."""


def each(faults: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICKLY else pytest.mark.slow) for name in faults]


@pytest.mark.parametrize("fault", each(CODE))
def test_a_fault_in_the_code_is_named_and_nothing_else_fails(people: Path, monkeypatch: Patch, fault: str) -> None:
    plant, expected, settings = CODE[fault]
    plant(monkeypatch)
    found = examined(people, settings)
    assert failed(found) == expected
    for name in expected:
        assert found[name].remedy
    followers = {name for cause in expected for name in FOLLOWS.get(cause, ())}
    assert not_ok(found) - expected <= followers | {"leak", "colour order"}, [each.line() for each in found.values()]


# --- planted into the files -------------------------------------------------------------------------------------------


@contextmanager
def a_copy(people: Path, tmp_path: Path) -> Iterator[Path]:
    out = tmp_path / "copy"
    shutil.copytree(people, out)
    yield out / "train"
    shutil.rmtree(out)


def every(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in folder.iterdir():
        with Image.open(path) as image:
            palette, array = image.getpalette(), np.asarray(image)
        changed = Image.fromarray(np.ascontiguousarray(change(array)))
        if palette:
            changed.putpalette(palette)
        changed.save(path, **({} if path.suffix == ".png" else {"quality": 98, "subsampling": 0}))


def pass_on(folder: Path) -> None:
    """Everybody gets the file of the next one."""
    paths = sorted(folder.iterdir())
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)


def joints_as(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in folder.iterdir():
        document = json.loads(path.read_text())
        person = document["people"][0]
        person["pose_keypoints_2d"] = change(np.array(person["pose_keypoints_2d"]).reshape(25, 3)).ravel().tolist()
        path.write_text(json.dumps(document))


def reversed_channels(*names: str) -> Callable[[Path], None]:
    def change(train: Path) -> None:
        for name in names:
            every(train / name, lambda array: array[..., ::-1])

    return change


def without_parse(then: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(train: Path) -> None:
        shutil.rmtree(train / "image-parse-v3")
        then(train)

    return change


def worn_as_cloth(train: Path) -> None:
    """The cloth picture is cut from the target where it lies."""
    for path in (train / "image").iterdir():
        labels = np.asarray(Image.open(train / "image-parse-v3" / f"{path.stem}.png"))
        cut = np.where((labels == 5)[..., None], np.asarray(Image.open(path)), 255).astype(np.uint8)
        Image.fromarray(cut).save(train / "cloth" / path.name, quality=100, subsampling=0)


def twins(train: Path) -> None:
    """Half of the people are copies of the other half under other names."""
    paths = sorted((train / "image").iterdir())
    for one, other in zip(paths[:18], paths[18:], strict=True):
        shutil.copy(one, other)


def leaked_split(rename: Callable[[str], str]) -> Callable[[Path], None]:
    """Ten training pictures are the test split, too."""

    def change(train: Path) -> None:
        (train.parent / "test" / "image").mkdir(parents=True)
        names = sorted(path.name for path in (train / "image").iterdir())[:10]
        for name in names:
            shutil.copy(train / "image" / name, train.parent / "test" / "image" / rename(name))
        lines = "".join(f"{rename(name)} {rename(name)}\n" for name in names)
        (train.parent / "test_pairs.txt").write_text(lines)

    return change


SWAPPED = [0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17, *range(19, 25)]
PICTURES = ("image", "counterfactual")

DISK: dict[str, tuple[Callable[[Path], Any], set[str], tuple[str, ...]]] = {
    "BGR everywhere": (reversed_channels(*PICTURES, "cloth"), {"colour order"}, ()),
    "BGR clothes": (reversed_channels("cloth"), {"colour order"}, ()),
    "mirrored pictures": (lambda d: [every(d / n, lambda a: a[:, ::-1]) for n in PICTURES], {"flip"}, ()),
    "left joints are right ones": (lambda d: joints_as(d / "openpose_json", lambda j: j[SWAPPED]), {"pose"}, ()),
    "joints of the next": (lambda d: pass_on(d / "openpose_json"), {"pose"}, ()),
    "clothes of the next": (lambda d: pass_on(d / "cloth"), {"pairing"}, ()),
    "masks inverted": (lambda d: every(d / "agnostic-mask", lambda a: 255 - a), {"mask", "leak"}, SHIPPED),
    "masks of the next": (lambda d: pass_on(d / "agnostic-mask"), {"mask"}, SHIPPED),
    "clothes 0 and 1": (lambda d: every(d / "cloth", lambda a: a // 255), {"range"}, ()),
    "twins": (twins, {"overlap"}, SHIPPED),
    "test people in training": (leaked_split(lambda name: name), {"overlap"}, ()),
    "test pictures in training": (leaked_split(lambda name: f"t{name}"), {"overlap"}, ()),
    "no parse, masks inverted": (
        without_parse(lambda d: every(d / "agnostic-mask", lambda a: 255 - a)),
        {"mask"},
        ALONE,
    ),
    "no parse, clothes of the next": (without_parse(lambda d: pass_on(d / "cloth")), {"pairing"}, ALONE),
    "no parse, BGR": (without_parse(reversed_channels(*PICTURES, "cloth")), {"colour order"}, SHIPPED),
    "no parse, joints of the next": (without_parse(lambda d: pass_on(d / "openpose_json")), {"pose"}, SHIPPED),
}


@pytest.mark.parametrize("fault", each(DISK))
def test_a_fault_on_disk_is_named_though_tensors_and_files_agree(people: Path, tmp_path: Path, fault: str) -> None:
    change, expected, settings = DISK[fault]
    with a_copy(people, tmp_path) as train:
        change(train)
        found = examined(train.parent, settings)
    assert failed(found) >= expected
    assert failed(found) - expected <= {"pairing"}, [finding.line() for finding in found.values()]
    assert found["files"].status == "ok"


@pytest.mark.slow
def test_a_cloth_cut_from_the_target_is_warned_of(people: Path, tmp_path: Path) -> None:
    with a_copy(people, tmp_path) as train:
        worn_as_cloth(train)
        found = examined(train.parent, ('data.settings=["paired"]',))
    assert failed(found) == set()
    assert found["same picture"].status == "warn"


# --- healthy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        (),
        pytest.param(ALONE, marks=pytest.mark.slow),
        (*REFINES, 'precision="bf16"'),
        pytest.param(SQUARE, marks=pytest.mark.slow),
        pytest.param(OTHERWISE, marks=pytest.mark.slow),
    ],
    ids=["as it is", "no joints", "refines, with noise", "square", "eps, larger cloth"],
)
def test_nothing_is_wrong_with_sound_data(people: Path, settings: tuple[str, ...]) -> None:
    found = examined(people, settings)
    assert not_ok(found) == set(), [finding.line() for finding in found.values()]
    assert all(not finding.remedy for finding in found.values())
    optional = {"low res", "condition noise"} if "net.low_res=true" not in settings else set()
    assert list(found) == [name for name in NAMES if name not in optional]


@pytest.mark.slow
def test_without_plain_files_the_tensors_alone_are_judged(people: Path, monkeypatch: Patch) -> None:
    blind = replace(QUICK, files=0)
    found = examined(people, thresholds=blind)
    assert not_ok(found) == set()
    assert "no plain folder" in found["files"].found
    batch_as(lambda b: replace(b, cloth=b.need("cloth").roll(1, 0)))(monkeypatch)
    assert failed(examined(people, thresholds=blind)) >= {"pairing"}


@pytest.mark.slow
def test_few_people_are_a_warning_alone(people: Path, tmp_path: Path) -> None:
    with a_copy(people, tmp_path) as train:
        for name in ("train_pairs.txt", "train_unpaired_pairs.txt"):
            lines = (train.parent / name).read_text().splitlines()[:8]
            (train.parent / name).write_text("\n".join(lines))
        found = examined(train.parent)
    assert not_ok(found) == {"variety"}
    assert found["variety"].status == "warn"
    assert found["variety"].found.startswith("8 people")


@pytest.fixture
def patient(people: Path) -> Patient:
    return patient_of(tiny(), people, device="cpu", thresholds=QUICK)


def test_an_examination_repeats_itself_draws_no_random_number_and_gives_plain_data(patient: Patient) -> None:
    torch.manual_seed(5)
    before = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]  # noqa: NPY002
    first = check_contract(patient)
    assert torch.rand(1).item() == torch.rand(1, generator=torch.Generator().manual_seed(5)).item()
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index, union-attr]  # noqa: NPY002
    assert [asdict(finding) for finding in check_contract(patient)] == [asdict(finding) for finding in first]
    assert patient.online is None
    for finding in first:
        json.dumps(dict(finding.evidence), allow_nan=False)
        assert "\n" not in finding.line()
        assert finding.tier == "A"


def test_a_batch_that_the_trainer_refuses_is_a_finding(people: Path, monkeypatch: Patch) -> None:
    read_as(lambda right, files: right(files) * torch.tensor([1, 1, 0.5]), "pose")(monkeypatch)
    found = examined(people)
    assert failed(found) == {"pose"}
    assert "stops at once" in found["pose"].found
