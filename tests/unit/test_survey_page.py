"""The page of a survey holds everything it shows, stays small, and takes no file at its word."""

import json
import os
import re
from pathlib import Path

import pytest

from drape.data.exclude import read_excluded, without
from drape.data.viton_hd import VitonHD
from drape.survey.cross import cross
from drape.survey.facts import PairFacts, Problem, Survey
from drape.survey.page import draw_page, write_page
from drape.survey.report import exclude_list, kinds_of, left_out, to_dict, verdict
from drape.survey.thumbnails import MOST, Thumbnails

KINDS = {"person": "image", "cloth": "cloth", "cloth_mask": "cloth-mask"}


def facts_of(name: str, split: str = "train", **changes: object) -> PairFacts:
    files = {kind: f"{split}/{folder}/{name}.jpg" for kind, folder in KINDS.items()}
    files |= {"parse": f"{split}/image-parse-v3/{name}.png", "joints": f"{split}/openpose_json/{name}_keypoints.json"}
    return PairFacts(**{"split": split, "person_id": name, "cloth_id": name, "files": files, **changes})  # type: ignore


def problem(kind: str = "mask inverted", ids: tuple[str, ...] = ("a",), **changes: object) -> Problem:
    values = {
        "severity": "error", "message": f"{kind} of {', '.join(ids)}", "remedy": "Invert it.", "split": "train",
        "ids": ids, "exclude": True, "paths": tuple(f"train/cloth-mask/{name}.jpg" for name in ids),
    }  # fmt: skip
    return Problem(kind=kind, **{**values, **changes})  # type: ignore[arg-type]


def survey(root: Path, facts: list[PairFacts], *problems: Problem) -> Survey:
    counts = {split: sum(each.split == split for each in facts) for split in dict.fromkeys(f.split for f in facts)}
    return Survey(
        root=str(root), layout="viton-hd", counts=counts, problems=problems, facts=tuple(facts),
        statistics=cross(root, facts).statistics, seconds=1.0, looked_at=len(facts),
    )  # fmt: skip


@pytest.fixture
def people(viton) -> Path:
    root: Path = viton.write(["a", "b", "c"]).root
    (root / "train_unpaired_pairs.txt").write_text("a.jpg b.jpg\nb.jpg c.jpg\nc.jpg a.jpg\n")
    return root


def test_a_sound_set_is_told_so(people: Path) -> None:
    page = draw_page(survey(people, [facts_of(name) for name in "abc"]))
    assert "Nothing is wrong" in page and 'class="good"' in page
    assert "What was found" not in page and "What to leave out" not in page
    assert page.count("data:image/") >= 3 * 3  # a sample is always shown


def test_the_page_needs_no_network_and_shows_what_is_wrong_with_pictures(people: Path, tmp_path: Path) -> None:
    found = survey(
        people, [facts_of(name) for name in "abc"], problem(), problem("overlap", ("b",), severity="warning")
    )
    write_page(tmp_path / "page.html", found)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=(?!["'](?:#|data:))|@import|url\((?!data:)""", page)
    assert "1 kind of error in 1 of 3 pairs" in page and "mask inverted of a" in page and "Invert it." in page
    assert re.search(r'class="thumb blamed"><span class="pic t\d+" role="img" aria-label="mask of a"', page)
    assert "--exclude exclude.txt" in page and "download=" in page


def test_names_cannot_change_the_page(people: Path) -> None:
    name = '<script>alert("x")</script>'
    page = draw_page(survey(people, [facts_of("a"), facts_of(name)], problem(ids=(name,), message=f"{name} & $root")))
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "$root" in page


def test_what_cannot_be_drawn_is_an_empty_frame(people: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.jpg"
    (people / "train/image/b.jpg").rename(outside)
    (people / "train/image/b.jpg").symlink_to(outside)
    (people / "train/cloth/b.jpg").write_bytes(b"no picture")
    (people / "train/cloth-mask/b.jpg").unlink()
    os.mkfifo(people / "train/cloth-mask/b.jpg")
    row = Thumbnails(people.resolve()).row(facts_of("b"), ["person", "cloth", "cloth_mask", "parse", "joints"])
    assert row.count("no picture</span>") == 4 and row.count('class="pic t') == 1
    assert Thumbnails(people).row(facts_of("b", files={}), ["person"]).count("missing</span>") == 1


def test_a_page_of_ten_thousand_broken_pairs_stays_small(people: Path) -> None:
    one = facts_of("a").files
    facts = [facts_of(f"p{i:05d}", files=one) for i in range(10_000)]
    kinds = [f"kind {i}" for i in range(40)]
    problems = [problem(kinds[i % 40], (f"p{i:05d}",), paths=(one["cloth_mask"],)) for i in range(10_000)]
    page = draw_page(survey(people, facts, *problems))
    assert len(page) < 5_000_000
    assert page.count("<li><div") < 40 * 8 and "all of them in the list" in page


def test_no_more_thumbnails_are_made_than_a_page_can_hold(people: Path) -> None:
    thumbnails = Thumbnails(people.resolve())
    thumbnails._styles = {str(i): str(i) for i in range(MOST)}
    assert "not shown</span>" in thumbnails.row(facts_of("a"), ["person"])


def test_kinds_are_listed_errors_first_then_by_the_pairs_they_spoil() -> None:
    found = kinds_of(
        [
            problem("few", ("a",)),
            problem("many", ("a",)),
            problem("many", ("b", "a")),
            problem("mild", ("a", "b", "c"), severity="warning"),
        ]
    )
    assert [(each.kind, each.severity, len(each.pairs)) for each in found] == [
        ("many", "error", 2), ("few", "error", 1), ("mild", "warning", 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("problems", "said"),
    [
        ([], "Nothing is wrong"),
        ([problem(severity="warning")], "No errors, 1 kind of warning"),
        ([problem(), problem("empty mask", ("b",))], "2 kinds of error in 2 of 2 pairs"),
        ([problem(ids=(), paths=())], "1 kind of error in the set of 2 pairs"),
    ],
)
def test_the_verdict_says_how_much_is_wrong(problems: list[Problem], said: str, tmp_path: Path) -> None:
    assert verdict(survey(tmp_path, [facts_of("a"), facts_of("b")], *problems))[0] == said


def test_a_run_takes_the_list_as_it_is(people: Path, tmp_path: Path) -> None:
    facts = [*(facts_of(name) for name in "abc"), facts_of("t", "test")]
    found = survey(
        people, facts,
        problem(ids=("b",)), problem("leak", ("b",), paths=("train/agnostic-v3.2/b.jpg",)),
        problem("overlap", ("t",), split="test"), problem("few joints", ("c",), exclude=False),
        problem("missing file", ("nobody",)),
    )  # fmt: skip
    assert left_out(found) == ["b"]
    path = tmp_path / "exclude.txt"
    path.write_text(exclude_list(found), encoding="utf-8")
    excluded = read_excluded(path)
    assert excluded.lines == ["a b", "b"]  # a wears the cloth of b in the unpaired list
    paired, other = without(
        [VitonHD(people, size=(32, 24)), VitonHD(people, setting="unpaired", size=(32, 24))], excluded
    )
    assert paired.ids == [("a", "a"), ("c", "c")] and other.ids == [("c", "a")]
    text = path.read_text(encoding="utf-8")
    assert "\nb       # mask inverted, leak\n" in text and "\n# test t  # overlap\n" in text


def test_the_list_of_a_sound_set_is_empty_and_can_be_read(people: Path, tmp_path: Path) -> None:
    path = tmp_path / "exclude.txt"
    path.write_text(exclude_list(survey(people, [facts_of("a")])), encoding="utf-8")
    assert read_excluded(path).entries == ()


def test_a_survey_is_json(people: Path) -> None:
    found = survey(people, [facts_of(name) for name in "abc"], problem())
    document = json.loads(json.dumps(to_dict(found, facts=True)))
    assert document["verdict"] == "1 kind of error in 1 of 3 pairs" and document["exclude"] == ["a"]
    assert document["kinds"] == {"mask inverted": {"severity": "error", "problems": 1, "pairs": 1}}
    assert [each["person_id"] for each in document["facts"]] == ["a", "b", "c"]
    assert "facts" not in to_dict(found)
