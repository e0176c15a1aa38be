"""What the code says about noise, against the theory: samplers, targets, schedules.  No data, no training, seconds.

A run's own sampler and targets are asked with nets that know the answer, and compared with formulas written again
(`drape.doctor.predictor`, `drape.doctor.formulas`).
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from drape import sampling
from drape.config import RunConfig
from drape.diffusion.prediction import Prediction
from drape.doctor import draws, formulas, noise, predictor
from drape.doctor.finding import Finding
from drape.doctor.patient import Patient
from drape.doctor.stand_ins import Guess, Oracle, any_conditions, used_by
from drape.sampling import SamplingConfig
from drape.shapes import Image
from drape.training import loss

GUIDANCE = (1.0, 2.0)
LEVELS = 101
CLEAR = 0.98
"""Targets are compared up to this t: beyond it eps and x0 determine each other badly in single precision."""
PLAIN_STD = 0.3
PLAIN_STEPS = 64


def check_sampler(patient: Patient) -> list[Finding]:
    """Each sampler, asked with a net that knows the truth, must return it; and noise where the truth is noise.

    evidence   psnr: dB by "sampler guidance"; std: by sampler, the standard deviation of images made by the perfect
               denoiser of plain noise, over the true one
    """
    config, limits = patient.config, patient.thresholds
    psnr: dict[str, float] = {}
    wrong_cloth = False
    for sampler, guidance in itertools.product(noise.SAMPLERS, GUIDANCE):
        found = _truth_sampled(patient, sampler, guidance)
        psnr[f"{sampler} {guidance:g}"] = found.psnr
        wrong_cloth |= found.wrong_cloth
    std = {sampler: _plain_sampled(patient, sampler) for sampler in noise.SAMPLERS}
    evidence = {"psnr": psnr, "std": std}
    bad = {name: each for name, each in psnr.items() if not each >= limits.oracle_psnr_db}
    blurred = {name: each for name, each in std.items() if not abs(each - 1) <= limits.plain_error}
    if wrong_cloth:
        return [Finding("FAIL", "sampler", "the net is handed the cloth features of another cloth than it is told of",
                         "Compare drape/sampling.py, _encode_each_cloth_once.", evidence)]  # fmt: skip
    if bad:
        worst, least = min(bad.items(), key=lambda each: each[1])
        way, at = worst.split()
        means = "guidance" if all(each.endswith(" 2") for each in bad) else "sampling"
        said = f"a net that says the true {config.diffusion.target} gives an image of {least:.0f} dB with {way} at "
        said += f"guidance {at}, expected at least {limits.oracle_psnr_db:.0f}: the fault is in {means}"
        remedy = "Compare drape.sampling with x0 and eps as alpha, sigma and the target define them."
        return [Finding("FAIL", "sampler", said, remedy, evidence)]
    if blurred:
        kind, ratio = max(blurred.items(), key=lambda each: abs(math.log(max(each[1], 1e-9))))
        said = f"with the perfect denoiser {kind} makes images of {ratio:.2f} times the true contrast"
        return [Finding("FAIL", "sampler", said, f"Compare {kind} in drape/diffusion/samplers.py with its paper; the "
                         "noise it adds or keeps in a step is not what the ladder says.", evidence)]  # fmt: skip
    said = f"returns what the net knows: at least {min(psnr.values()):.0f} dB, {len(psnr)} ways to sample"
    return [Finding("ok", "sampler", said, "", evidence)]


@dataclass(frozen=True, kw_only=True)
class _Sampled:
    psnr: float
    wrong_cloth: bool


def _truth_sampled(patient: Patient, sampler: noise.Sampler, guidance: float) -> _Sampled:
    """Sample with an oracle of one picture under its conditions, and another one without."""
    truth = pictures(patient.config, 2).to(patient.device)
    other = truth / 2
    oracle, image = _sampled(
        patient, sampler, guidance, patient.thresholds.oracle_steps, lambda x_t, a, s, null: _rows(null, other, truth)
    )
    expected = (guidance * truth + (1 - guidance) * other).clamp(-1, 1)
    error = (image - expected).double().square().mean().item()
    psnr = 10 * math.log10(4 / max(error, 1e-20)) if math.isfinite(error) else -math.inf
    return _Sampled(psnr=psnr, wrong_cloth=not all(call.cloth for call in oracle.calls))


def _plain_sampled(patient: Patient, sampler: noise.Sampler) -> float:
    """Standard deviation of the images of the perfect denoiser of N(0, PLAIN_STD^2) in every pixel, over the true one.

    x0 given x_t has the mean alpha PLAIN_STD^2 x_t / (alpha^2 PLAIN_STD^2 + sigma^2).
    """

    def guess(x_t: Image, a: Tensor, s: Tensor, null: Tensor) -> Image:
        return a * PLAIN_STD**2 * x_t / (a.square() * PLAIN_STD**2 + s.square())

    _, image = _sampled(patient, sampler, 1.0, PLAIN_STEPS, guess, noted=False)
    return image.double().square().mean().sqrt().item() / PLAIN_STD


def _sampled(
    patient: Patient, sampler: noise.Sampler, guidance: float, steps: int, guess: Guess, *, noted: bool = True
) -> tuple[Oracle, Image]:
    """(the oracle as it was asked, two images)."""
    config = patient.config
    conditions = any_conditions(config, 2).to(patient.device)
    oracle = Oracle(config, conditions if noted else None, guess).to(patient.device)
    how = SamplingConfig(sampler=sampler, steps=steps, guidance=guidance)
    return oracle, sampling.sample(oracle, config, conditions, [0, 1], how)


def check_prediction(patient: Patient) -> list[Finding]:
    """What the net is trained to say, and how that is read when sampling, against alpha, sigma and the definitions.

    evidence   largest errors, by "x_t", "target", "x0", "eps"
    """
    config, limits = patient.config, patient.thresholds
    kind = config.diffusion.target
    t = torch.linspace(0, CLEAR, LEVELS)
    level = formulas.log_snr_at(config.diffusion, config.resolution, t).float()
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(LEVELS, 3, 8, 8, generator=generator) * 2 - 1
    eps = torch.randn(LEVELS, 3, 8, 8, generator=generator)
    a, s = predictor.amplitudes(level)
    x_t = a * x0 + s * eps
    said = predictor.encode(kind, Prediction(x0, eps), level)
    trained = used_by(loss, "target_of")(kind, x0, eps, level)
    read = used_by(sampling, "predict")(kind, said, x_t, level)
    back = used_by(sampling, "predict")(kind, trained, x_t, level)
    errors = {
        "x_t": _largest(used_by(loss, "add_noise")(x0, eps, level) - x_t),
        "target": _largest(trained - said),
        "x0": _largest(read.x0 - x0),
        "eps": _largest((read.eps - eps) * s),
    }
    evidence = {"errors": errors}
    wrong = [name for name, error in errors.items() if not error <= limits.prediction_error]
    if not wrong:
        text = f"{kind} as defined, x0 recovered to {errors['x0']:.0e}"
        return [Finding("ok", "prediction", text, "", evidence)]
    if wrong == ["x_t"]:
        text = f"x_t in training is not alpha x0 + sigma eps: off by {errors['x_t']:.2g}"
        return [Finding("FAIL", "prediction", text, "Compare add_noise in drape/diffusion/prediction.py.", evidence)]
    consistent = _largest(back.x0 - x0) <= limits.prediction_error
    known = _recognised(trained, x0, eps, a, s)
    if "target" in wrong:
        text = f"the run trains {kind}, but what the net is to say is {known} (off by {errors['target']:.2g})"
    else:
        text = f"the {kind} that the net says is read as another image when sampling, off by {errors['x0']:.2g}"
    text += "; sampling reads it back to the right image" if consistent else ""
    remedy = f"Compare target_of and predict in drape/diffusion/prediction.py with {DEFINITIONS[kind]}."
    return [Finding("warn" if consistent else "FAIL", "prediction", text, remedy, evidence)]


DEFINITIONS = {"eps": "eps", "x0": "x0", "v": "v = alpha eps - sigma x0", "flow": "flow = eps - x0"}


def check_schedule(patient: Patient) -> list[Finding]:
    """The noise levels of training and those that sampling visits, against the formula the config names.

    evidence   t, log_snr: the schedule; ladder: the levels a sampler visits; largest errors by "power", "level",
               "ladder", "variance"; alpha_end: what is left of the image at t = 1
    """
    config, limits = patient.config, patient.thresholds
    diffusion, size = config.diffusion, config.resolution
    t = torch.linspace(0, 1, LEVELS, dtype=torch.float64)
    schedule = diffusion.build_schedule(size)
    level, own = schedule.log_snr(t), formulas.log_snr_at(diffusion, size, t)
    one, nothing = torch.ones(LEVELS, 3, 1, 1), torch.zeros(LEVELS, 3, 1, 1)
    alpha = used_by(loss, "add_noise")(one, nothing, own.float())[:, 0, 0, 0].double()
    sigma = used_by(loss, "add_noise")(nothing, one, own.float())[:, 0, 0, 0].double()
    steps = SamplingConfig().steps
    ladder = used_by(sampling, "ladder")(schedule, steps)
    due = formulas.log_snr_at(diffusion, size, torch.arange(steps, 0, -1) / steps)
    errors = {
        "power": _largest(alpha.square() + sigma.square() - 1),
        "level": _largest(level - own),
        "ladder": _largest(ladder[:-1] - due) if len(ladder) == steps + 1 else math.inf,
        "variance": _variance_error(patient, own),
    }
    end = (1 + math.exp(-level[-1].item())) ** -0.5
    evidence: dict[str, Any] = {"t": t.tolist(), "log_snr": level.tolist(), "ladder": ladder[:-1].tolist()}
    evidence |= {"errors": errors, "alpha_end": end}
    problem = _schedule_problem(errors, level, patient)
    if problem:
        return [Finding("FAIL", "schedule", *problem, evidence)]
    if end > limits.alpha_end:
        text = f"at t = 1 the image still has {end:.3f} of its amplitude, but sampling starts from pure noise"
        return [Finding("warn", "schedule", text, "Use --set diffusion.schedule=cosine, or a lower shift.", evidence)]
    text = f"{diffusion.schedule}: log-SNR {level[0]:.1f} to {level[-1]:.1f}, sampling from {ladder[0]:.1f}; "
    text += f"variance right to {errors['variance']:.1%}"
    return [Finding("ok", "schedule", text, "", evidence)]


def _schedule_problem(errors: dict[str, float], level: Tensor, patient: Patient) -> tuple[str, str] | None:
    """(what is wrong, what to do) of the gravest."""
    limits, name = patient.thresholds, patient.config.diffusion.schedule
    if not (level.diff() < 0).all():
        return "log-SNR does not fall with t everywhere", "Mend log_snr of the schedule: more t must be more noise."
    if not errors["power"] <= limits.power_error:
        text = f"alpha^2 + sigma^2 is off 1 by up to {errors['power']:.2g}"
        return text, "Take alpha^2 = sigmoid(log_snr) and sigma^2 = sigmoid(-log_snr)."
    if not errors["level"] <= limits.level_error:
        text = f"the levels trained are off the {name} schedule by up to {errors['level']:.2g} in log-SNR"
        return text, "Compare log_snr of the schedule, and its shift, with its formula."
    if not errors["ladder"] <= limits.level_error:
        text = f"sampling visits other levels than the {name} schedule trained: off by up to {errors['ladder']:.2g}"
        return text, "Give drape.sampling.sample the ladder of config.diffusion.build_schedule."
    if not errors["variance"] <= limits.variance_error:
        text = f"the variance of x_t is off alpha^2 Var(x) + sigma^2 by up to {errors['variance']:.1%}"
        return text, "Look at the noise: it must have variance 1 and know nothing of the image."
    return None


def _variance_error(patient: Patient, levels: Tensor) -> float:
    """The largest relative error of the variance of x_t, made of the images and the noise that training draws."""
    micros = patient.micros
    count = min(64, sum(len(micro.batch) for micro in micros))
    x0 = torch.cat([micro.batch.need("person") for micro in micros])[:count].cpu()
    eps = torch.cat([micro.draws.eps for micro in micros])[:count].cpu()
    worst = 0.0
    for level in levels[:: LEVELS // 10].float():
        x_t = used_by(loss, "add_noise")(x0, eps, level.expand(count)).double()
        alpha2 = torch.sigmoid(level.double()).item()
        due = alpha2 * x0.double().square().mean().item() + 1 - alpha2
        worst = max(worst, abs(x_t.square().mean().item() / due - 1))
    return worst


def pictures(config: RunConfig, count: int) -> Image:
    """Smooth colours with some texture, in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    height, width = config.resolution
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 1.6 - 0.8
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (smooth + 0.1 * torch.randn(count, 3, height, width, generator=generator)).clamp(-1, 1)


def _recognised(found: Tensor, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> str:
    """What a target that is not the right one comes nearest to, in words."""
    known = {
        "eps": eps,
        "x0": x0,
        "alpha eps - sigma x0": a * eps - s * x0,
        "alpha eps + sigma x0": a * eps + s * x0,
        "sigma eps - alpha x0": s * eps - a * x0,
        "x_t": a * x0 + s * eps,
        "eps - x0": eps - x0,
        "eps + x0": eps + x0,
    }
    known |= {f"-({name})": -value for name, value in known.items()}
    if found.shape != x0.shape:
        return "of another shape"
    name, error = min(((name, _largest(found - value)) for name, value in known.items()), key=lambda each: each[1])
    return name if error < 1e-3 else "none of the known targets"


def _rows(null: Tensor, where: Image, otherwise: Image) -> Image:
    index = torch.arange(len(null)) % len(where)
    return torch.where(null.reshape(-1, 1, 1, 1), where[index], otherwise[index])


def _largest(error: Tensor) -> float:
    """The largest absolute value; infinite where one is no number."""
    return error.abs().max().item() if torch.isfinite(error).all() else math.inf


CHECKS = (check_sampler, check_prediction, check_schedule, *noise.CHECKS, *draws.CHECKS)
