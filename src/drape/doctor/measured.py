"""What the checks of a trained net share: whose weights, which pairs, how old, and measurements made but once."""

from dataclasses import dataclass

from drape.data.sample import TryOnBatch
from drape.doctor.patient import Patient
from drape.doctor.predictor import CHANGES, OfNet
from drape.doctor.probe import Grid, Measurement, measure
from drape.evaluation.yardsticks import Yardsticks, compute
from drape.nets.parallel_unet import ParallelUNet

YARDSTICK_IMAGES = 256


@dataclass(frozen=True, kw_only=True)
class Age:
    """How far a run has come, for checks that must not blame a net for being young.

    steps   updates of the weights; None where nobody knows, and then it counts as grown up
    early   whether too few of them lie behind to expect that a condition is used
    """

    steps: int | None
    early: bool

    def __str__(self) -> str:
        return "after an unknown number of steps" if self.steps is None else f"after {self.steps:,} steps"


def age_of(patient: Patient) -> Age:
    """Early is before `enough_steps`, and in a long run before `enough_share` of it, though not after `late_steps`.

    A net that does as well as a linear filter where there is most noise is grown up after `ripe_steps`: it has learned
    what can be learned there without the cloth.
    """
    config, thresholds = patient.config, patient.thresholds
    steps = patient.images_seen // config.batch_size
    share = thresholds.enough_share * config.images / config.batch_size
    enough = max(thresholds.enough_steps, min(thresholds.late_steps, share))
    ripe = False
    if thresholds.ripe_steps <= steps < enough:
        found = measured(patient, on=examined_on(patient))
        best = thresholds.ripe_ratio * ruler_of(patient).quarters("wiener")[-1]
        ripe = found is not None and found.finite and found.quarters()[-1] <= best
    return Age(steps=steps, early=steps < enough and not ripe)


def ruler_of(patient: Patient) -> Yardsticks:
    """The yardsticks of the people that are trained on, at the levels of the measurements."""
    return patient.once(_ruler)


def whose(patient: Patient) -> tuple[str, ParallelUNet] | None:
    """The weights that count, in words, and themselves: the average where there is one."""
    if patient.ema is not None:
        return "average", patient.ema
    return None if patient.online is None else ("online", patient.online)


def measured(patient: Patient, which: str = "ema", on: str = "held-out") -> Measurement | None:
    """What the patient's net does, measured once: all changes of the weights that count on held-out pairs, and the
    bare errors of anything else.  None where there are no such weights or pairs.

    which   "ema" (online weights where there is no average) or "online"
    on      "held-out" or "training"
    """
    return patient.once(_measured, which, on)


def pairs_of(patient: Patient, on: str) -> TryOnBatch | None:
    """The pairs that are measured on, on the patient's device."""
    count = patient.thresholds.probe_pairs
    pairs = patient.held_out(count) if on == "held-out" else patient.trained(count)
    return None if pairs is None else pairs.to(patient.device)


def examined_on(patient: Patient) -> str:
    """The pairs that checks are about: "held-out", or "training" where nothing is held out."""
    return patient.once(_examined_on)


def measure_net(patient: Patient, net: ParallelUNet, on: str, *, everything: bool = False) -> Measurement | None:
    """The errors of this net on the patient's pairs, with every input changed in turn if `everything` is asked."""
    config, pairs = patient.config, pairs_of(patient, on)
    if pairs is None:
        return None
    schedule = config.diffusion.build_schedule(config.resolution)
    return measure(
        OfNet(net, config),
        pairs,
        Grid.of(schedule.log_snr, config.resolution, patient.thresholds.probe_levels),
        target=config.diffusion.target,
        changes=CHANGES if everything else (),
        null=OfNet(net, config, null=True) if everything else None,
    )


def _ruler(patient: Patient) -> Yardsticks:
    schedule = patient.config.diffusion.build_schedule(patient.config.resolution)
    images = patient.source.people_images(YARDSTICK_IMAGES)
    return compute(images, schedule, patient.thresholds.probe_levels)


def _examined_on(patient: Patient) -> str:
    return "training" if patient.held_out(1) is None else "held-out"


def _measured(patient: Patient, which: str, on: str) -> Measurement | None:
    net = patient.online if which == "online" else (patient.ema or patient.online)
    chief = which == "ema" and on == examined_on(patient)
    return None if net is None else measure_net(patient, net, on, everything=chief)
