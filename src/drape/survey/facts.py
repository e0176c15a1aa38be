"""What a look at a data set finds: problems in words, and facts of every pair in numbers; all of it JSON.

The facts of a pair depend on its own files alone, so they can be kept and reused; what shows only in the
whole set (duplicates, sizes unlike the rest, missing folders) is found from the facts of all pairs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning"]
"""error: training on it fails or learns something false.  warning: look at it; it may be meant."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    kind      a few words that never change, such as "missing file" or "mask inverted"
    message   what was found and what was expected, one line
    remedy    what to do, one line
    split     "" where it concerns no one split
    ids       people whose pairs it spoils, all of `split`; empty where it concerns the set as a whole
    exclude   whether a training run is better without these people until it is repaired
    paths     the files concerned, from the root of the set
    """

    kind: str
    severity: Severity
    message: str
    remedy: str
    split: str = ""
    ids: tuple[str, ...] = ()
    exclude: bool = False
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PairFacts:
    """A person with their own cloth, as far as the files could be read.

    person_id   "" for a cloth of the pairs file that nobody of its split wears
    files       path from the root by kind ("person", "cloth", "cloth_mask", "parse" ...); a missing one is not in it
    missing     kinds that have no file though the set has a folder for them
    sizes       (height, width) by kind
    numbers     measures by name: see drape.survey.measures, and brightness, contrast, cloth_share ...
    hashes      "person.pixels", "cloth.pixels" (sha256 of the decoded pixels, hex), and "person.phash",
                "person.dhash", "cloth.phash", "cloth.dhash" (64 bits, 16 hex digits)
    labels      share of the image that each of the 20 CIHP labels has; () without a readable parse
    cloth_lab   mean CIELAB colour of the cloth inside its mask; worn_lab of the upper clothes in the person's image
    cloth_spread, worn_spread
                quantiles of these colours; the distance of two of them is `measures.spread_distance`
    cloth_colours, worn_colours
                histograms of 64 bins (4 x 4 x 4 of R, G and B), shares
    """

    split: str
    person_id: str
    cloth_id: str
    problems: tuple[Problem, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    labels: tuple[float, ...] = ()
    cloth_lab: tuple[float, ...] = ()
    worn_lab: tuple[float, ...] = ()
    cloth_spread: tuple[float, ...] = ()
    worn_spread: tuple[float, ...] = ()
    cloth_colours: tuple[float, ...] = ()
    worn_colours: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "PairFacts":
        """The facts of `to_dict`, also after a way through JSON.  Raises TypeError or KeyError for anything else."""
        values = _tuples(document)
        values["problems"] = tuple(problem_from(each) for each in document["problems"])
        values["sizes"] = {kind: (int(size[0]), int(size[1])) for kind, size in document["sizes"].items()}
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The whole look.

    root         of the set, as it was given
    layout       "viton-hd" or "dresscode"
    counts       pairs by split
    problems     of the pairs, of the folders and of the set as a whole, errors first
    facts        of every pair, in the order of the pairs files
    statistics   of the set, by name, for the page: what `cross` returned
    seconds      it took; `looked_at` pairs were examined, the others known from before
    """

    root: str
    layout: str
    counts: dict[str, int]
    problems: tuple[Problem, ...]
    facts: tuple[PairFacts, ...]
    statistics: dict[str, Any]
    seconds: float
    looked_at: int

    @property
    def errors(self) -> int:
        """Number of problems that must be repaired."""
        return sum(problem.severity == "error" for problem in self.problems)


def problem_from(document: Mapping[str, Any]) -> Problem:
    """The problem of `asdict`, also after a way through JSON."""
    return Problem(**_tuples(document))


def _tuples(document: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where these classes have tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}
