"""`drape data show` from the command line, and the first picture of a run."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drape.cli import data_show
from drape.cli.main import main
from drape.presets import tiny
from drape.training import keeper
from drape.training.records import Record
from drape.training.state import TrainState

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "viton-hd-sample"


def show(*arguments: str | Path) -> int:
    return main(["data", "show", *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line on stderr of a command that could not be done."""
    assert show(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("drape: ") and printed.err.count("\n") == 1
    return printed.err


def test_a_sheet_says_whom_it_shows_and_where_it_is(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "sheet.png"
    assert show(people, "--people", "2", "--preset", "tiny", "--out", out) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "drape mannequin, CC0-1.0: 2 of 12 paired pairs of train",
        "pairs: 00000_00, 00006_00",
        "nets: tiny",
        str(out),
    ]
    with Image.open(out) as sheet:
        assert sheet.width > 9 * 192 and sheet.height > 4 * 256
    assert [path.name for path in out.parent.iterdir()] == ["sheet.png"]


def test_the_same_command_gives_the_same_bytes(people: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        assert show(people, "--ids", "00003_00", "--preset", "tiny", "--out", tmp_path / name) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    "example", [pytest.param(line, id=str(n)) for n, line in enumerate(data_show.EXAMPLES.strip().splitlines(), 1)]
)
def test_the_examples_in_the_help_run(
    example: str, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "mini").mkdir(parents=True)
    (tmp_path / "runs" / "mini" / "config.json").write_text(json.dumps(tiny().to_dict()))
    for name in ("people", "zalando-hd-resized", "pairs"):
        (tmp_path / name).symlink_to(people)
    monkeypatch.chdir(tmp_path)
    drape, *arguments = shlex.split(example)
    few = [] if "--ids" in arguments else ["--people", "1"]  # the last of two equal options counts
    assert drape == "drape" and main([*arguments, *few]) == 0
    assert Path(arguments[arguments.index("--out") + 1]).is_file()


def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.png"
    assert "no person 0003_00 among its 12. Did you mean 00003_00?" in refused(
        capsys, people, "--ids", "00001_00,0003_00", "--out", out
    )
    assert "is missing; people holds" in re.sub(r"; \S+/people", "; people", refused(
        capsys, people, "--split", "val", "--out", out
    ))  # fmt: skip
    assert "'pair' is not one of 'paired'," in refused(capsys, people, "--setting", "pair", "--out", out)
    assert "Did you mean tiny?" in refused(capsys, people, "--preset", "tini", "--out", out)
    assert "--preset, which is missing" in refused(capsys, people, "--set", "data.pose=null", "--out", out)
    assert "0 is too small" in refused(capsys, people, "--people", "0", "--out", out)
    assert "is no name of a picture" in refused(capsys, people, "--out", tmp_path / "x.gif")
    assert "is a folder" in refused(capsys, people, "--out", tmp_path)
    picture = people / "train" / "image" / "00001_00.jpg"
    before = picture.read_bytes()
    assert "lies in the data set" in refused(capsys, people, "--out", picture)
    assert picture.read_bytes() == before
    long = refused(capsys, people, "--ids", "9" * 5000, "--out", out)
    assert "..." in long and len(long) < 400
    assert "without folders" in refused(capsys, people, "--ids", "../../etc/passwd", "--out", out)
    (tmp_path / "file").write_text("")
    assert "is a file, expected a folder" in refused(capsys, people, "--out", tmp_path / "file" / "x.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_empty_split_and_a_damaged_file_are_named(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "people"
    shutil.copytree(people, root)
    (root / "test_pairs.txt").write_text("\n")
    assert "test_pairs.txt is empty" in refused(capsys, root, "--split", "test", "--out", tmp_path / "x.png")
    (root / "train" / "warp" / "00000_00.npz").write_bytes(b"no zip")
    assert "00000_00.npz is not a readable npz" in refused(
        capsys, root, "--ids", "00000_00", "--out", tmp_path / "x.png"
    )
    assert not (tmp_path / "x.png").exists()


@pytest.mark.skipif(not REAL.is_dir(), reason="the sample of VITON-HD is not here")
def test_real_pairs_without_joints_are_shown_with_what_they_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(REAL, "--people", "1", "--out", tmp_path / "train.png") == 0
    assert "viton-hd, CC BY-NC 4.0: 1 of 10 paired pairs of train" in capsys.readouterr().out
    assert show(REAL, "--split", "test", "--setting", "unpaired", "--people", "1", "--out", tmp_path / "t.jpg") == 0
    assert "00006_00 in 00008_00" in capsys.readouterr().out


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """One person in a preview, and nobody is dressed: that is tested elsewhere."""
    monkeypatch.setattr(keeper, "PREVIEW_PEOPLE", 1)
    monkeypatch.setattr(keeper, "sample_batch", lambda net, config, batch, *_: batch.need("person"))


def train(people: Path, out: Path) -> int:
    settings = [word for each in ("validation.every=0", "batch_size=2") for word in ("--set", each)]
    return main(["train", "tiny", "--data", str(people), "--out", str(out), "--images", "4", "--workers", "0",
                 "--device", "cpu", *settings])  # fmt: skip


def test_the_first_picture_of_a_run_is_what_goes_into_it(people: Path, tmp_path: Path, cheap: None) -> None:
    assert train(people, tmp_path / "run") == 0
    previews = tmp_path / "run" / "previews"
    with Image.open(previews / "inputs.png") as sheet:
        assert np.asarray(sheet).std() > 10
    written = sorted(previews.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [path.name for path in written] == ["inputs.png", "000000000000.png", "000000000004.png"]


def test_a_sheet_of_inputs_that_fails_is_an_event_and_the_run_goes_on(
    people: Path, tmp_path: Path, cheap: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise TypeError("no\nbrush")

    monkeypatch.setattr(keeper, "write_inputs", broken)
    assert train(people, tmp_path / "run") == 0
    (event,) = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert (event["images"], event["event"], event["reason"]) == (0, "preview failed", "no brush")


def test_a_run_that_goes_on_does_not_draw_its_inputs_again(
    people: Path, tmp_path: Path, cheap: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []
    after_step = keeper.Keeper.after_step

    def stopping(self: keeper.Keeper, state: TrainState, record: Record) -> bool:
        self.stop = state.images_seen < self.config.images
        return after_step(self, state, record)

    monkeypatch.setattr(keeper, "write_inputs", lambda path, source, count: drawn.append(path))
    monkeypatch.setattr(keeper.Keeper, "after_step", stopping)
    assert [train(people, tmp_path / "run"), train(people, tmp_path / "run")] == [130, 0]
    assert drawn == [tmp_path / "run" / "previews" / "inputs.png"]
