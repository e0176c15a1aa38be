"""What the sampler hands to the net, against what training did: the same pair, two ways."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy import ndarray
from PIL import Image

from drape import bundled, sampling
from drape.config import RunConfig
from drape.data.sample import TryOnBatch
from drape.doctor.batches import ids_of
from drape.doctor.contract_files import shrunk
from drape.doctor.contract_shown import (
    STEP,
    Arrays,
    Evidence,
    Problem,
    Shown,
    apart,
    conditions_arrays,
    handed,
    how_it_differs,
    judged,
    pictures,
    quiet_draws,
    thumbs,
)
from drape.doctor.finding import Finding
from drape.doctor.patient import Patient
from drape.doctor.stand_ins import Recorder, used_by
from drape.errors import DrapeError
from drape.pipeline import tryon
from drape.sampling import SamplingConfig
from drape.settings import NoiseAugConfig
from drape.training import loop

ONE_STEP = SamplingConfig(steps=1, guidance=1.0)
ENDINGS = (".jpg", ".png", "_keypoints.json", "_mask.png")
LABELS = 64  # drawn noise labels, to know the span of those in training
SAME = "Prepare pictures for sampling by the very functions that training reads them with: size, filter, range, order."
AUGMENT = "Sample at a level that training draws: noise_aug.sample between 0 and noise_aug.train_max."


class Bare(tryon.TryOnPipeline):
    """The pipeline of `drape try-on` around a spy instead of weights."""

    def __init__(self, config: RunConfig) -> None:
        self.name, self.device, self.provenance = "examined", torch.device("cpu"), {}
        self.config, self.net = config, Recorder(config)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to the net.  sampled, trained: arrays of the same pairs; refused: why there are none."""

    name: str
    sampled: Arrays
    trained: Arrays
    refused: str = ""


def check_sampling_inputs(patient: Patient, shown: Shown) -> Finding:
    """`drape try-on`, the validation and the previews hand the net what training does for the same person and cloth.

    evidence: by way and tensor, the largest difference in levels of 255 (joints: thousandths of the picture); bundled,
    the mean difference of a bundled cloth from an area average of its file; level and levels, log-SNR labels of the
    conditions in sampling and the span of those in training.
    """
    clean = replace(patient.config, noise_aug=NoiseAugConfig(), precision="fp32")
    problems: list[Problem] = []
    evidence: Evidence = {}
    words = []
    for way in _ways(patient, shown, clean):
        if way.refused:
            words.append(f"{way.name} not compared ({way.refused})")
            continue
        off = {name: _largest(name, way.sampled[name], way.trained[name]) for name in way.sampled}
        evidence[way.name] = {name: round(amount, 3) for name, amount in off.items()}
        wrong = [name for name, amount in off.items() if not amount <= shown.thresholds.sampling_levels]
        words.append(f"{way.name} {max(off.values()):.1f} levels")
        for name in wrong:
            how = how_it_differs(way.sampled[name], way.trained[name])
            text = f"{way.name} shows the net another {name} than training does, up to {off[name]:.0f} levels off{how}"
            problems.append(Problem("FAIL", text, SAME))
    problems += _bundled(patient, shown, evidence) + _levels(patient, shown, evidence)
    return judged("sampling inputs", problems, f"as in training: {', '.join(words)}", evidence)


def _ways(patient: Patient, shown: Shown, clean: RunConfig) -> Iterator[Way]:
    rows = [row for row in shown.files if shown.pairs[row][0] == shown.pairs[row][1] or shown.settings[row] != "paired"]
    yield _try_on(patient, shown, clean, rows[: shown.thresholds.dressed])
    yield _validation(patient, clean)
    _, batch = patient.source.preview(shown.thresholds.dressed)
    places = _places(patient, ids_of(batch))
    yield Way(
        name="preview",
        sampled=_sampled(clean, batch),
        trained=_conditions(handed(clean, patient.source.pairs(places))),
        refused="" if len(places) == len(batch) else "its pairs are in no list",
    )


def _try_on(patient: Patient, shown: Shown, clean: RunConfig, rows: list[int]) -> Way:
    """What `drape try-on` shows; from a small copy of the folder, since it reads the lists of a large one each time."""
    refused = Way(name="try-on", sampled={}, trained={})
    if clean.net.low_res:
        return replace(refused, refused="a net that refines a smaller one's image is not dressed with")
    if clean.data.layout != "viton-hd" or not rows:
        return replace(refused, refused="it reads plain folders in the VITON-HD layout")
    pipeline, spy, parts = Bare(clean), Recorder(clean), []
    pipeline.net = spy
    together, find_person, find_cloth = (used_by(tryon, name) for name in ("together", "find_person", "find_cloth"))
    try:
        with TemporaryDirectory() as folder:
            _copy_some(patient.root, Path(folder), {name for row in rows for name in shown.pairs[row]})
            for row in rows:
                person, cloth = (f"{folder}:{name}" for name in shown.pairs[row])
                record = together(find_person(person, clean), find_cloth(cloth, clean))
                pipeline([record], seeds=[0], steps=ONE_STEP.steps, guidance=ONE_STEP.guidance)
                parts.append(conditions_arrays(spy.seen[-1][2]))
    except DrapeError as error:
        return replace(refused, refused=str(error))
    sampled = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return replace(refused, sampled=sampled, trained={name: shown.record[name][rows] for name in sampled})


def _copy_some(root: Path, to: Path, names: set[str]) -> None:
    """The files of these people and clothes, of every kind, as a folder of their own."""
    for kind in (path for path in (root / "train").iterdir() if path.is_dir()):
        for path in (kind / f"{name}{ending}" for name in sorted(names) for ending in ENDINGS):
            if path.is_file():
                (to / "train" / kind.name).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to / "train" / kind.name / path.name)
    (to / "train_pairs.txt").write_text("".join(f"{name}.jpg {name}.jpg\n" for name in sorted(names)), encoding="utf-8")


def _validation(patient: Patient, clean: RunConfig) -> Way:
    """What the stable validation shows: its calls hold each pair several times, in the order of its pairs."""
    validator = replace(patient.validator, config=clean, device=torch.device("cpu"), wrong=None)
    spy = Recorder(clean)
    validator.run(spy)
    seen = [conditions_arrays(conditions) for _, _, conditions in spy.seen]
    found = {name: np.concatenate([part[name] for part in seen]) for name in seen[0]}
    pairs = validator.pairs.ids
    places = _places(patient, pairs)
    if len(places) < len(pairs):
        return Way(name="validation", sampled={}, trained={}, refused="its pairs are in no list")
    trained = _conditions(handed(clean, patient.source.pairs(places)))
    row = _nearest(found, trained)
    return Way(name="validation", sampled=found, trained={name: values[row] for name, values in trained.items()})


def _nearest(found: Arrays, expected: Arrays) -> ndarray:
    """For each row of `found` the most similar one of `expected`, by the agnostic image and the cloth."""
    off: ndarray = np.zeros((len(found["cloth"]), len(expected["cloth"])))
    for name in ("agnostic", "cloth"):
        one, other = (thumbs(side[name]).reshape(len(side[name]), -1) for side in (found, expected))
        off += np.stack([np.abs(other - each).mean(axis=1) for each in one])
    return off.argmin(axis=1)


def _places(patient: Patient, pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Where pairs of the last setting lie in the source; those that no list names are left out."""
    ids = patient.source.joined.ids
    before = len(ids) - len(patient.source.readers[-1])
    place = {pair: index for index, pair in enumerate(ids) if index >= before}
    return [place[pair] for pair in pairs if pair in place]


def _sampled(config: RunConfig, batch: TryOnBatch) -> Arrays:
    spy = Recorder(config)
    sampling.sample_batch(spy, config, batch, list(range(len(batch))), ONE_STEP)
    return conditions_arrays(spy.seen[0][2])


def _conditions(arrays: Arrays) -> Arrays:
    return {name: values for name, values in arrays.items() if name not in ("person", "agnostic_mask")}


def _largest(name: str, found: ndarray, expected: ndarray) -> float:
    """The largest difference: of images in levels of 255, of joints in thousandths of the picture."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max()) * (1000 if "pose" in name else 1 / STEP)


def _bundled(patient: Patient, shown: Shown, evidence: Evidence) -> list[Problem]:
    """A bundled cloth as `drape try-on` prepares it, against its own file: here pictures always shrink."""
    config = patient.config
    if config.data.fit != "whole" or config.data.cloth_kind != "flat" or not bundled.clothes():
        return []
    name = bundled.clothes()[0]
    try:
        found = pictures(used_by(tryon, "find_cloth")(name, config).image[None])
    except DrapeError:
        return []  # of another shape than this net's clothes
    with Image.open(bundled.cloth(name).image) as image:
        ways = shrunk(np.asarray(image.convert("RGB")), config.cloth_size)
    off = {way: float(apart(found, picture[None])[0]) for way, picture in ways.items()}
    evidence["bundled"] = round(off["area"], 3)
    if off["area"] <= shown.thresholds.file_levels:
        return []
    best = min(off, key=lambda way: off[way])
    text = f"try-on prepares the bundled {name} {off['area']:.1f} levels away from an area average of its file"
    cause = f", as '{best}' would" if off[best] < 0.5 * off["area"] else how_it_differs(found, ways["area"][None])
    return [Problem("FAIL", text + cause, SAME)]


def _levels(patient: Patient, shown: Shown, evidence: Evidence) -> list[Problem]:
    """The sampler's noise augmentation has a label that training draws, or that of clean images."""
    config = patient.config
    batch = patient.source.pairs(patient.source.sides[0][:2])
    spy, still = Recorder(config), Recorder(config)
    sampling.sample_batch(spy, config, batch, [0] * len(batch), ONE_STEP)
    used_by(loop, "diffusion_loss")(still, config, batch, quiet_draws(config, len(batch)))
    label, clean = (seen.seen[0][2].noise_aug.float() for seen in (spy, still))
    trained = torch.cat([training_labels(patient), clean])
    low, high = float(trained.min()), float(trained.max())
    evidence |= {"level": [round(x, 3) for x in label[0].tolist()], "levels": [round(low, 3), round(high, 3)]}
    found = f"sampling labels the conditions with log-SNR {float(label.min()):.1f} to {float(label.max()):.1f}"
    if config.noise_aug.sample == 0 and not torch.allclose(label[:1], clean[:1], atol=0.1):
        return [Problem("FAIL", f"{found}, training labels clean ones {float(clean.max()):.1f}", AUGMENT)]
    slack = 0.05 * (high - low) + 0.1
    if float(label.max()) > high + slack or float(label.min()) < low - slack:
        return [Problem("FAIL", f"{found}, training {low:.1f} to {high:.1f}", AUGMENT)]
    return []


def training_labels(patient: Patient) -> torch.Tensor:
    """Noise labels of the conditions of the first micro-batches, as the loss makes them; nothing dropped."""
    labels: list[torch.Tensor] = []
    for micro in patient.micros:
        if sum(map(len, labels)) >= LABELS:
            break
        spy = Recorder(patient.config)
        draws = replace(micro.draws, drop=torch.zeros_like(micro.draws.drop))
        used_by(loop, "diffusion_loss")(spy, patient.config, micro.batch, draws)
        labels.append(spy.seen[0][2].noise_aug.float())
    return torch.cat(labels)


def check_condition_noise(patient: Patient, shown: Shown) -> Finding | None:
    """Conditions carry the noise that their label says, in training as in sampling; None for a run without any.

    evidence: NAME_training, NAME_sampling, standard deviation of the noise found over that of the label (1 is right).
    """
    config = patient.config
    if config.noise_aug.train_max == 0:
        return None
    micro = patient.micros[0]
    spy = Recorder(config)
    draws = replace(micro.draws, drop=torch.zeros_like(micro.draws.drop))
    used_by(loop, "diffusion_loss")(spy, config, micro.batch, draws)
    evidence = {f"{name}_training": ratio for name, ratio in _noise(spy, handed(config, micro.batch)).items()}
    if config.noise_aug.sample > 0:
        spy = Recorder(config)
        sampling.sample_batch(spy, config, micro.batch, list(range(len(micro.batch))), ONE_STEP)
        evidence |= {f"{name}_sampling": ratio for name, ratio in _noise(spy, handed(config, micro.batch)).items()}
    wrong = {name: ratio for name, ratio in evidence.items() if not abs(ratio - 1) <= shown.thresholds.noise_ratio}
    problems = [
        Problem("FAIL", f"{_said(name)} carries {ratio:.2f} times the noise that its label says", AUGMENT)
        for name, ratio in wrong.items()
    ]
    said = ", ".join(f"{_said(name)} {ratio:.2f}" for name, ratio in evidence.items())
    return judged("condition noise", problems, f"noise found over noise labelled: {said}", evidence)


def _said(name: str) -> str:
    """ "low_res in training" of "low_res_training"."""
    return " in ".join(name.rsplit("_", 1))


def _noise(spy: Recorder, clean: Mapping[str, ndarray]) -> dict[str, float]:
    """Noise found in each conditioning image over the noise its label says, both as a standard deviation."""
    conditions = spy.seen[0][2]
    found = conditions_arrays(conditions)
    names = [name for name in ("agnostic", "cloth", "low_res") if name in found]
    ratios: dict[str, float] = {}
    for column, name in enumerate(names):
        label = conditions.noise_aug[:, column].double().numpy().reshape(-1, 1, 1, 1)
        alpha, sigma = (np.sqrt(1 / (1 + np.exp(sign * label))) for sign in (-1, 1))
        noise = (found[name] - alpha * clean[name]).std(axis=(1, 2, 3))
        loud = sigma.reshape(-1) > 0.1
        ratios[name] = float(np.median(noise[loud] / sigma.reshape(-1)[loud])) if loud.any() else 1.0
    return ratios


def check_low_res(patient: Patient, shown: Shown) -> Finding | None:
    """For a net that refines: low_res is the target averaged down, at its size, in [-1, 1]; None for other nets.

    evidence: off, the mean difference in levels of 255 from the averaged target; contrast, the ratio of the standard
    deviations; noised, the largest level of noise that training puts on it.
    """
    config = patient.config
    if not config.net.low_res:
        return None
    evidence: Evidence = {"noised": config.noise_aug.train_max}
    found, size = shown.record["low_res"], config.low_res_size
    if found.shape[1:3] != size:
        text = f"low_res is {found.shape[1]}x{found.shape[2]}, expected {size[0]}x{size[1]} (height x width)"
        return judged(
            "low res", [Problem("FAIL", text, "Give the net the stage before at its own size.")], "", evidence
        )
    person = shown.record["person"]
    expected = person.reshape(len(person), size[0], 2, size[1], 2, 3).mean(axis=(2, 4))
    evidence["off"] = float(np.median(apart(found, expected)))
    evidence["contrast"] = float(found.std() / max(float(expected.std()), 1e-6))
    problems = []
    if evidence["off"] > shown.thresholds.low_res_levels:
        how = how_it_differs(found, expected)
        text = f"low_res is {evidence['off']:.0f} levels away from the target averaged down{how}"
        problems.append(Problem("FAIL", text, "Average the target down, in the one range [-1, 1] of every stage."))
    if config.noise_aug.train_max == 0:
        text = "low_res is clean in training, and the stage before will never be: the net would copy its mistakes"
        problems.append(
            Problem("warn", text, "Set noise_aug.train_max=1, as the paper does, and noise_aug.sample=0.1.")
        )
    said = (
        f"the target at half size, {evidence['off']:.2f} levels off, noised up to level {config.noise_aug.train_max:g}"
    )
    return judged("low res", problems, said, evidence)
