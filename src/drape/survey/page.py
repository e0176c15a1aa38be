"""A survey as one web page: verdict, findings with pictures, statistics, what to leave out; nothing is fetched."""

import random
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from drape import pages
from drape.survey.facts import PairFacts, Problem, Survey
from drape.survey.page_figures import figures_of, measures_table
from drape.survey.report import KindOfProblem, Pair, by_pair, exclude_list, kinds_of, left_out, verdict
from drape.survey.thumbnails import Thumbnails

PAIRS_SHOWN = 6
"""Pairs of a kind of problem that are shown with pictures; further ones in words up to LINES_SHOWN."""
LINES_SHOWN = 200
SAMPLES = 8
OUTLIERS = 8
SUSPECTS = 12
FILES = ("person", "cloth", "cloth_mask", "parse", "joints", "shipped_agnostic", "shipped_mask")
"""What a sample is shown with, as far as it is there."""
MOST_FILES = 5


def write_page(path: Path, survey: Survey) -> None:
    """Write the page, whole or not at all.  Raises CheckpointError where it cannot be written."""
    pages.write(path, draw_page(survey))


def draw_page(survey: Survey) -> str:
    """The page as HTML.  Files are opened once more for their thumbnails, as carefully as before."""
    title, reason = verdict(survey)
    kinds = kinds_of(survey.problems)
    severities = {each.severity for each in kinds}
    page = _Page(survey)
    body = {
        "findings": page.findings(kinds),
        "suspects": page.suspects(),
        "statistics": page.statistics(),
        "samples": page.samples(),
        "exclude": page.exclude(),
    }
    return pages.fill(
        "data_check",
        root=escape(Path(survey.root).resolve().name),
        layout={"viton-hd": "VITON-HD", "dresscode": "DressCode"}.get(survey.layout, escape(survey.layout)),
        verdict=escape(title),
        tone="bad" if "error" in severities else "warn" if severities else "good",
        reason=escape(reason),
        facts=pages.facts(_facts(survey)),
        thumbnails=page.thumbnails.styles(),
        **body,
    )


class _Page:
    """The sections, which share their thumbnails."""

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        self.thumbnails = Thumbnails(Path(survey.root).resolve(), dresscode=survey.layout == "dresscode")
        self.pairs = by_pair(survey.facts)
        self.owner_of = {path: (each, kind) for each in survey.facts for kind, path in each.files.items()}

    def findings(self, kinds: Sequence[KindOfProblem]) -> str:
        if not kinds:
            return ""
        rows = "\n".join(_row(number, each) for number, each in enumerate(kinds))
        details = "\n".join(self._kind(number, each) for number, each in enumerate(kinds))
        return _section(
            "found",
            "What was found",
            "Errors first. Each line leads to its pairs.",
            f'<ol class="kinds">{rows}</ol><div class="details">{details}</div>',
        )

    def suspects(self) -> str:
        found = self.survey.statistics.get("match", {}).get("suspects", [])
        if not found:
            return ""
        flagged = sum(each["flagged"] for each in found)
        found = found[: max(flagged + 4, SUSPECTS)]
        said = (
            f"{flagged} of them stand out clearly and are listed above."
            if flagged
            else "None stands out: these are the ends of what is usual."
        )
        cards = "".join(self._suspect(each) for each in found)
        return _section(
            "fit",
            "Clothes that fit their people least",
            f"By colour, the most suspicious first, each beside the cloth of the set that would suit best. {said}",
            f'<ul class="strip">{cards}</ul>',
        )

    def statistics(self) -> str:
        numbers = self.survey.statistics
        figures = "\n".join(figures_of(numbers))
        outliers = "".join(self._outlier(each) for each in numbers.get("outliers", [])[:OUTLIERS])
        if outliers:
            outliers = (
                "<h3>Pictures that stand out</h3><p>Far from the middle of the set in one number; nothing need be "
                f'wrong with them.</p><ul class="strip">{outliers}</ul>'
            )
        table = measures_table(numbers["numbers"]) if numbers.get("numbers") else ""
        folded = f"<details><summary>Every measure</summary>{table}</details>" if table else ""
        if not figures:
            return ""
        return _section(
            "made", "What the set is made of", "Over all pairs of all splits.",
            f'<div class="figures">{figures}</div>{outliers}{folded}',
        )  # fmt: skip

    def samples(self) -> str:
        people = [each for each in self.survey.facts if each.person_id]
        chosen = random.Random(0).sample(people, min(SAMPLES, len(people)))
        cards = "".join(self._card(each, _kinds_shown(each), "") for each in chosen)
        return _section("sample", "Some pairs", "Drawn by lot.", f'<ul class="cards">{cards}</ul>') if cards else ""

    def exclude(self) -> str:
        text = exclude_list(self.survey)
        count = len(left_out(self.survey))
        if not count:
            return ""
        people = f"{count:,} {'person' if count == 1 else 'people'}"
        return _section(
            "leave",
            "What to leave out until it is repaired",
            f"Save the list, and train without these {people} of the training split:",
            "<pre><code>drape train PRESET --data DIR --out RUN --exclude exclude.txt</code></pre>"
            f'<p class="buttons"><button type="button" data-copy="list">Copy the list</button>'
            f'<a download="exclude.txt" href="data:text/plain;charset=utf-8,{quote(text)}">Save as exclude.txt</a></p>'
            '<textarea id="list" readonly rows="10" spellcheck="false" aria-label="exclude list">'
            f"{escape(text)}</textarea>",
        )

    def _kind(self, number: int, found: KindOfProblem) -> str:
        shown, rest = found.problems[:PAIRS_SHOWN], found.problems[PAIRS_SHOWN:]
        cards = "".join(self._problem(each) for each in shown)
        lines = "".join(f"<li>{escape(each.message)}</li>" for each in rest[:LINES_SHOWN])
        more = len(rest) - LINES_SHOWN
        if more > 0:
            lines += f"<li>and {more:,} more, all of them in the list of drape data check --json</li>"
        folded = f"<details><summary>{len(rest):,} more</summary><ul>{lines}</ul></details>" if rest else ""
        remedy = "".join(f'<p class="remedy">{escape(each)}</p>' for each in found.remedies[:2])
        heading = f'<h3 id="k{number}">{_tag(found)} {escape(found.kind)}</h3>{remedy}'
        one = " one" if len(found.problems) == 1 else ""
        content = f'{heading}<ul class="cards">{cards}</ul>{folded}'
        return f'<section class="kind{one}" aria-labelledby="k{number}">{content}</section>'

    def _problem(self, problem: Problem) -> str:
        """A card: the files that are concerned, beside the person and the cloth."""
        message = escape(problem.message)
        copies = [self.owner_of[path] for path in problem.paths if path in self.owner_of]
        if len({id(facts) for facts, _ in copies}) > 1:
            row = "".join(
                self.thumbnails.row(facts, [kind], names=[facts.person_id or facts.cloth_id])
                for facts, kind in copies[:MOST_FILES]
            )
            return f'<li><div class="row">{row}</div><p>{message}</p></li>'
        pairs = [self.pairs[pair] for pair in _pairs(problem) if pair in self.pairs]
        if not pairs:
            return f"<li><p>{message}</p></li>"
        kinds = list(dict.fromkeys(kind for _, kind in copies))
        rows = "".join(
            f'<div class="row">{self.thumbnails.row(each, _kinds_shown(each, kinds), blamed=kinds[:1])}</div>'
            for each in pairs[: 2 if len(pairs) > 1 else 1]
        )
        return f"<li>{rows}<p>{message}</p></li>"

    def _card(self, facts: PairFacts, kinds: Sequence[str], message: str) -> str:
        said = f" {escape(message)}" if message else ""
        return (
            f'<li><div class="row">{self.thumbnails.row(facts, kinds)}</div>'
            f"<p><b>{escape(facts.person_id or facts.cloth_id)}</b> {escape(facts.split)}{said}</p></li>"
        )

    def _suspect(self, found: dict[str, Any]) -> str:
        facts = self.pairs.get((found["split"], found["person_id"]))
        if facts is None:
            return ""
        row = self.thumbnails.row(facts, ["person", "cloth"])
        best = self.pairs.get((found["split"], found["best"]))
        if best is not None and found["best"] != found["cloth_id"]:
            row += self.thumbnails.row(best, ["cloth"], names=[f"suits: {found['best']}"])
        mark = ' class="flagged"' if found["flagged"] else ""
        return (
            f'<li{mark}><div class="row">{row}</div><p><b>{escape(found["person_id"])}</b> {escape(found["split"])}<br>'
            f"colours {found['distance']:.1f} apart, {found['closer']:.0%} of the others suit better</p></li>"
        )

    def _outlier(self, found: dict[str, Any]) -> str:
        facts = self.pairs.get((found["split"], found["person_id"] or found["cloth_id"]))
        if facts is None:
            return ""
        row = self.thumbnails.row(facts, ["person", "cloth"] if facts.person_id else ["cloth"])
        return (
            f'<li><div class="row">{row}</div><p><b>{escape(found["person_id"] or found["cloth_id"])}</b> '
            f"{escape(found['split'])}<br>{escape(found['measure'].replace('_', ' '))} {found['value']:.3g}, "
            f"usual is {found['usual']:.3g}</p></li>"
        )


def _pairs(problem: Problem) -> list[Pair]:
    return [(problem.split, name) for name in problem.ids]


def _kinds_shown(facts: PairFacts, concerned: Sequence[str] = ()) -> list[str]:
    """Person and cloth, then what a problem concerns, then what else there is, in a fixed order."""
    drawable = [kind for kind in concerned if not kind.endswith("warp") and kind in (*FILES, *facts.files)]
    first = ["person", "cloth"] if facts.person_id else ["cloth"]
    others = [kind for kind in FILES if kind in facts.files]
    return list(dict.fromkeys([*first, *drawable, *others]))[:MOST_FILES]


def _row(number: int, found: KindOfProblem) -> str:
    pairs = len(found.pairs)
    count = f"{pairs:,} {'pair' if pairs == 1 else 'pairs'}" if pairs else "the set"
    return (
        f'<li>{_tag(found)}<a href="#k{number}">{escape(found.kind)}</a><span class="count">{count}</span>'
        f'<p>{escape(found.problems[0].message)}</p><p class="remedy">{escape(found.remedies[0])}</p></li>'
    )


def _tag(found: KindOfProblem) -> str:
    return f'<span class="tag {found.severity}">{found.severity}</span>'


def _section(name: str, title: str, lead: str, content: str) -> str:
    heading = f'<h2 id="{name}">{escape(title)}</h2><p>{escape(lead)}</p>'
    return f'<section aria-labelledby="{name}">{heading}{content}</section>'


def _facts(survey: Survey) -> dict[str, str]:
    sizes = survey.statistics.get("sizes", {}).get("person", {})
    facts = {f"pairs in {split}": f"{count:,}" for split, count in survey.counts.items()}
    if sizes:
        size, count = next(iter(sizes.items()))
        facts["size of the people"] = size if len(sizes) == 1 else f"{size} ({count:,}) and {len(sizes) - 1} more"
    facts["errors, warnings"] = " and ".join(
        f"{sum(each.severity == severity for each in survey.problems):,}" for severity in ("error", "warning")
    )
    facts["better left out"] = f"{len(left_out(survey)):,}"
    facts["took"] = f"{survey.seconds:.0f} s"
    return facts
