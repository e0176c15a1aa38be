"""A run leaves out whoever is on its list, in training and in validation, and says so."""

from pathlib import Path

import pytest

from drape.config import override
from drape.data.cache import cache
from drape.data.exclude import num_excluded, read_excluded, without
from drape.data.viton_hd import VitonHD
from drape.errors import ConfigError, DataError
from drape.presets import tiny
from drape.training.origin import check_origin, excluded_by, origin_of
from drape.training.sources import Source, open_readers

PEOPLE = [f"p{number:02d}" for number in range(40)]
CONFIG = override(tiny(), ["batch_size=6", "validation.held_out=0.2", 'data.settings=["paired"]'])


def listed(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "exclude.txt"
    path.write_text(text, encoding="utf-8")
    return path


def unpaired(root: Path) -> VitonHD:
    """Everybody in the next one's cloth."""
    return VitonHD(root, setting="unpaired", size=(32, 24), fields=("person", "cloth"))


def source(root: Path, exclude: Path | None = None) -> Source:
    readers = open_readers(CONFIG, root, None if exclude is None else read_excluded(exclude))
    return Source(config=CONFIG, readers=readers, cached=[cache(reader) for reader in readers], workers=0)


def everybody_in(data: Source) -> set[str]:
    """Who is in the batches of three epochs, what is validated on, previewed, and shown to the yardsticks."""
    people: set[str] = set()
    for number, (_, batch) in enumerate(data.batches(0, [slice(0, CONFIG.batch_size)])):
        if number * CONFIG.batch_size > 3 * len(PEOPLE):
            break
        people |= set(batch.person_id)
    validated = {data.readers[-1].ids[index][0] for index in data.validation_indices()}
    assert validated == data.held
    return people | validated | set(data.preview(4)[1].person_id)


def test_an_excluded_person_is_never_trained_on_nor_validated_on(viton, tmp_path) -> None:
    root = viton.write(PEOPLE).root
    whole = source(root)
    one_of_each = [sorted(whole.held)[0], sorted(set(PEOPLE) - whole.held)[0]]
    assert everybody_in(whole) == set(PEOPLE)
    data = source(root, listed(tmp_path, "\n".join(one_of_each)))
    assert everybody_in(data) == set(PEOPLE) - set(one_of_each)
    assert num_excluded(data.readers) == 2 and len(data.people_images(100)) == 38 - len(data.held)


def test_a_pair_is_excluded_alone_and_a_person_in_every_cloth(viton, tmp_path) -> None:
    root = viton.write(PEOPLE[:4], unpaired=True).root
    readers = [VitonHD(root, size=(32, 24)), unpaired(root)]
    text = "\ufeff# a list\n\np00   # every pair\np01 p02\n  p01 p02  # again\n"
    excluded = read_excluded(listed(tmp_path, text))
    paired, other = without(readers, excluded)
    assert paired.ids == [("p01", "p01"), ("p02", "p02"), ("p03", "p03")]
    assert other.ids == [("p02", "p03"), ("p03", "p00")]
    assert excluded.lines == ["p00", "p01 p02"] and num_excluded([paired, other]) == 3
    assert [paired[i].person_id for i in range(3)] == ["p01", "p02", "p03"]
    assert other[1].cloth_id == "p00" and other.by_id("p02").cloth_id == "p03"
    assert other.by_id("p01").person_id == "p01"  # its picture can still be looked up


def test_a_pair_that_only_other_settings_have_is_no_error(viton, tmp_path) -> None:
    root = viton.write(PEOPLE[:3], unpaired=True).root
    (reader,) = without([VitonHD(root, size=(32, 24))], read_excluded(listed(tmp_path, "p00 p01")))
    assert len(reader) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("p00\n\npp1\n", r"line 3 excludes pp1, which is no person among 3\. Did you mean p01\?"),
        ("p00 c01\n", r"line 1 excludes c01, which is no cloth among 3\. Did you mean p01\?"),
        (
            "q9\nq8\np00\n",
            r"line 1 excludes q9.*\(2 of 3 lines are unknown\)\. Give the list that belongs to this data",
        ),
        ("p00 p01 p02\n", r"line 1 is 'p00 p01 p02', expected a person id, or a person and a cloth id"),
        ("p00\np01\np02\n", r"excludes all 3 pairs of .*train\. Shorten the list"),
    ],
)
def test_a_list_that_cannot_be_meant_is_one_line(text: str, said: str, viton, tmp_path) -> None:
    root = viton.write(PEOPLE[:3]).root
    with pytest.raises(DataError, match=said) as caught:
        without([VitonHD(root, size=(32, 24))], read_excluded(listed(tmp_path, text)))
    assert "exclude.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_that_cannot_be_read_is_one_line(tmp_path) -> None:
    with pytest.raises(DataError, match=r"nobody\.txt is missing, expected a list of ids"):
        read_excluded(tmp_path / "nobody.txt")
    with pytest.raises(DataError, match="is not readable text"):
        read_excluded(tmp_path)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(DataError, match="is not readable text"):
        read_excluded(tmp_path / "bytes.txt")


@pytest.mark.parametrize("text", ["{}", "[", '{"exclude": 3}'])
def test_a_json_file_that_keeps_no_list_is_one_line(text: str, tmp_path) -> None:
    path = tmp_path / "origin.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"origin.json holds no list of pairs. Give the origin.json of a run"):
        read_excluded(path)


def test_files_of_the_excluded_may_be_missing(viton, tmp_path) -> None:
    root = viton.write(PEOPLE[:4]).root
    for folder in ("image", "cloth", "image-parse-v3"):
        (root / "train" / folder).joinpath(f"p01.{'png' if 'parse' in folder else 'jpg'}").unlink()
    with pytest.raises(DataError, match=r"names p01, but .* is missing"):
        open_readers(CONFIG, root)
    (reader,) = open_readers(CONFIG, root, read_excluded(listed(tmp_path, "p01\n")))
    assert [person for person, _ in reader.ids] == ["p00", "p02", "p03"]
    assert len(cache(reader)) == 3


def test_an_empty_list_excludes_nobody(viton, tmp_path) -> None:
    root = viton.write(PEOPLE[:3]).root
    (reader,) = without([VitonHD(root, size=(32, 24))], read_excluded(listed(tmp_path, "# nothing was found\n")))
    assert len(reader) == 3


def test_a_run_goes_on_with_the_same_pairs_only(viton, tmp_path) -> None:
    root, run = viton.write(PEOPLE[:4]).root, tmp_path / "run"
    run.mkdir()

    def origin(text: str | None) -> dict:
        excluded = None if text is None else read_excluded(listed(tmp_path, text))
        return origin_of(open_readers(CONFIG, root, excluded), None, frozenset(), None, excluded)

    stored = check_origin(run, origin("p00\n"), begun=False)
    assert stored["data"]["pairs"] == 3 and stored["data"]["excluded"] == 1 and stored["exclude"] == ["p00"]
    left_out = excluded_by(run)
    assert left_out is not None and ("p00", "p00") in left_out and ("p01", "p01") not in left_out
    check_origin(run, origin("p00 p00  # the same pair\n"), begun=True)
    for other in ("p01\n", "p00\np01\n", None):
        with pytest.raises(ConfigError, match=r"begun on other data.*the same --data and the same --exclude"):
            check_origin(run, origin(other), begun=True)


def test_the_origin_of_a_run_without_a_list_says_nothing_of_it(viton, tmp_path) -> None:
    origin = origin_of(open_readers(CONFIG, viton.write(PEOPLE[:4]).root), None, frozenset(), None)
    assert "exclude" not in origin and "excluded" not in origin["data"]
    check_origin(tmp_path, origin, begun=False)
    assert excluded_by(tmp_path) is None
