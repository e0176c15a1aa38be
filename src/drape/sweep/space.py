"""What a search varies: one parameter per `--search KEY=...`, over any setting of a run.

    optim.lr=log:1e-4:3e-3                between two numbers, evenly in the logarithm
    condition_drop=uniform:0:0.3          between two numbers
    batch_size=int:16:64                  whole numbers, both ends included
    diffusion.weighting=choice:min-snr,uniform    one of these; [0.9,0.99] is one value, not two

Everything is checked against the config before anything starts: the key, the kind of value, that every value works
with some choice of the others, and that some trial reads it.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, get_args

from drape.config import RunConfig, kind_of, parse_value, replace_values
from drape.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from optuna.trial import Trial

Kind = Literal["log", "uniform", "int", "choice"]
KINDS = get_args(Kind)
EXAMPLE = "--search optim.lr=log:1e-4:3e-3"
DIGITS = 4  # a number is rounded to so many significant digits: the table then shows the very value that was used
MOST_CORNERS = 256  # combinations tried before a search starts
INSIDE = 0.381966  # of the way from low to high: a number that is not whole where whole numbers would be needed

RULER = {
    "validation": "what the score is measured on",
    "resolution": "what the score is measured on",
    "data.layout": "what is hidden, and so what the score is measured on",
    "data.agnostic": "what is hidden, and so what the score is measured on",
    "data.mask": "what is hidden, and so what the score is measured on",
    "data.settings": "which task the score is measured on",
    "name": "nothing but a word",
}
"""Settings, and sections, that must be the same for all trials of a search, and what they change."""

READ_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "diffusion.gamma": ("diffusion.weighting", ("clipped-snr", "min-snr")),
    "diffusion.bias": ("diffusion.weighting", ("sigmoid",)),
    "loss.huber_delta": ("loss.kind", ("huber",)),
    "loss.perceptual_weight": ("loss.perceptual", ("lpips", "nlpd")),
    "loss.perceptual_max_t": ("loss.perceptual", ("lpips", "nlpd")),
    "loss.perceptual_start_images": ("loss.perceptual", ("lpips", "nlpd")),
    "optim.betas": ("optim.kind", ("adamw", "adam", "adamw8bit")),
    "optim.eps": ("optim.kind", ("adamw", "adam", "adamw8bit")),
    "optim.fused": ("optim.kind", ("adamw", "adam", "sgd")),
    "optim.momentum": ("optim.kind", ("sgd",)),
    "optim.decay": ("optim.schedule", ("wsd",)),
    "finetune.rank": ("finetune.train", ("lora",)),
    "finetune.alpha": ("finetune.train", ("lora",)),
}
"""Settings that training reads only with some values of another one: that one, and those values."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One searched setting.  `choices` are texts as written; low and high belong to the other kinds."""

    key: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()

    def suggest(self, trial: "Trial") -> float | int | str:
        """The value of this trial as the study stores it; asking again gives the same."""
        match self.kind:
            case "choice":
                return trial.suggest_categorical(self.key, self.choices)
            case "int":
                return trial.suggest_int(self.key, int(self.low), int(self.high))
        return trial.suggest_float(self.key, self.low, self.high, log=self.kind == "log")

    def text(self, raw: float | int | str) -> str:
        """The setting as `--set KEY=TEXT` takes it; a number is rounded to DIGITS."""
        if isinstance(raw, str) or self.kind == "int":
            return str(raw)
        rounded = float(f"{raw:.{DIGITS}g}")
        return json.dumps(min(max(rounded, self.low), self.high))

    def examples(self) -> tuple[str, ...]:
        """Values that stand for all: the choices; the ends and a number between them."""
        if self.kind == "choice":
            return self.choices
        inside = self.low + INSIDE * (self.high - self.low)
        return tuple(self.text(round(each) if self.kind == "int" else each) for each in (self.low, self.high, inside))

    def grid(self) -> tuple[int | str, ...]:
        """All values.  Raises ConfigError for a range of real numbers."""
        if self.kind == "choice":
            return self.choices
        if self.kind == "int":
            return tuple(range(int(self.low), int(self.high) + 1))
        raise ConfigError(
            f"--sampler grid cannot enumerate {self.key}={self.kind}:{self.low:g}:{self.high:g}. Name the values, such "
            f"as {self.key}=choice:{self.low:g},{self.high:g}, or use another sampler."
        )


@dataclass(frozen=True)
class Space:
    """All parameters of a search, in the order they were given."""

    parameters: tuple[Parameter, ...]

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "Space":
        """Raises ConfigError for a text that is no parameter, an unknown key, and a key that is given twice."""
        if not texts:
            raise ConfigError(f"nothing is searched over. Give {EXAMPLE}, say.")
        parameters = tuple(parse_parameter(text) for text in texts)
        keys = [parameter.key for parameter in parameters]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"--search names {key} twice. Give each setting once.")
        return cls(parameters)

    def check(self, base: RunConfig) -> None:
        """Raises ConfigError for a value that works with no choice of the others, and for a key that no trial reads."""
        examples = [[(p.key, text) for text in p.examples()] for p in self.parameters]
        refused: dict[tuple[str, str], ConfigError] = {}
        works: set[tuple[str, str]] = set()
        for corner in itertools.islice(itertools.product(*examples), MOST_CORNERS):
            try:
                self.config(base, dict(corner))
                works.update(corner)
            except ConfigError as error:
                for each in corner:
                    refused.setdefault(each, error)
        for each in (each for column in examples for each in column):
            if each not in works and each in refused:
                raise ConfigError(f"--search {each[0]}: {refused[each]}")
        for parameter in self.parameters:
            self._check_read(base, parameter.key)

    def _check_read(self, base: RunConfig, key: str) -> None:
        switch, values = READ_WITH.get(key, ("", ()))
        if not switch:
            return
        found = next((p.choices for p in self.parameters if p.key == switch), (attrgetter(switch)(base),))
        if not any(parse_value(switch, text) in values for text in found):
            raise ConfigError(
                f"--search {key}: no trial reads it, as {switch} is {' or '.join(found)}. It takes "
                f"{switch}={' or '.join(values)}."
            )

    def suggest(self, trial: "Trial") -> dict[str, str]:
        """The settings of a trial by key, as texts."""
        return {p.key: p.text(p.suggest(trial)) for p in self.parameters}

    def texts(self, raw: Mapping[str, Any]) -> dict[str, str]:
        """The same from the values that the study has stored."""
        return {p.key: p.text(raw[p.key]) for p in self.parameters if p.key in raw}

    def config(self, base: RunConfig, texts: Mapping[str, str]) -> RunConfig:
        """The config of a trial.  Raises ConfigError for a combination that cannot work."""
        return replace_values(base, {key: parse_value(key, text) for key, text in texts.items()})

    def grid(self) -> list[dict[str, int | str]]:
        """Every combination, the last parameter changing fastest.  Raises ConfigError for a range of real numbers."""
        columns = [[(p.key, value) for value in p.grid()] for p in self.parameters]
        return [dict(row) for row in itertools.product(*columns)]


def parse_parameter(text: str) -> Parameter:
    """Raises ConfigError for anything that is not KEY=KIND:..., with a key of the config that may vary."""
    key, equals, rest = (part.strip() for part in text.partition("="))
    if not equals:
        raise ConfigError(f"--search {text!r} has no '='. Write {EXAMPLE}, say.")
    if is_dataclass(kind_of(key)):
        raise ConfigError(f"--search {key}: {key} is a section, expected one setting in it. Write {EXAMPLE}, say.")
    ruler = next((name for name in RULER if key == name or key.startswith(f"{name}.")), None)
    if ruler is not None:
        raise ConfigError(f"--search {key}: it changes {RULER[ruler]}, the same for all trials. Use --set {key}=VALUE.")
    kind, colon, values = (part.strip() for part in rest.partition(":"))
    if kind not in KINDS or not colon:
        advice = did_you_mean(kind, KINDS, otherwise="Use log:LOW:HIGH, uniform:LOW:HIGH, int:LOW:HIGH or choice:A,B.")
        raise ConfigError(f"--search {key}: {kind!r} is no way to search. {advice} Such as {EXAMPLE}.")
    return _choice(key, values) if kind == "choice" else _range(key, kind, values)


def _choice(key: str, values: str) -> Parameter:
    choices = split_choices(values)
    if len(choices) < 2 or "" in choices or len(set(choices)) < len(choices):
        raise ConfigError(f"--search {key}: choice:{values} must name two or more different values. Write choice:A,B.")
    return Parameter(key=key, kind="choice", choices=choices)


def _range(key: str, kind: Any, values: str) -> Parameter:
    try:
        low, high = (int(each) if kind == "int" else float(each) for each in values.split(":"))
    except ValueError as error:
        what = "whole numbers" if kind == "int" else "numbers"
        raise ConfigError(f"--search {key}: {values!r} is not LOW:HIGH in {what}. Write {EXAMPLE}, say.") from error
    if not low < high or not all(map(math.isfinite, (low, high))):
        raise ConfigError(f"--search {key}: {kind}:{values} is no range, expected LOW below HIGH.")
    if kind == "log" and low <= 0:
        raise ConfigError(f"--search {key}: log:{values} starts at {low:g}, expected a number above 0.")
    return Parameter(key=key, kind=kind, low=float(low), high=float(high))


def split_choices(text: str) -> tuple[str, ...]:
    """The parts between the commas that are in no brackets and no quotes."""
    parts, depth, quoted = [""], 0, False
    for character in text:
        quoted ^= character == '"'
        depth += 0 if quoted else (character in "[{(") - (character in "]})")
        if character == "," and not quoted and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return tuple(part.strip() for part in parts)
