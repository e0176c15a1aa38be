"""The one way an unknown name is answered."""

from pathlib import Path

import drape
from drape.errors import did_you_mean

OTHERWISE = "Known: lr, betas."


def test_the_nearest_known_name_is_suggested_whatever_its_case() -> None:
    assert did_you_mean("rl", ["lr", "betas"], otherwise=OTHERWISE) == "Did you mean lr?"
    assert did_you_mean("BETA", ["lr", "betas"], otherwise=OTHERWISE) == "Did you mean betas?"
    assert did_you_mean("maya", ["Maya"], otherwise=OTHERWISE) == "Did you mean Maya?"
    assert did_you_mean("beta", ["lr", "betas"], prefix="optim.", otherwise=OTHERWISE) == "Did you mean optim.betas?"
    assert did_you_mean("rl", ["lr"], full={"lr": "optim.lr"}, otherwise=OTHERWISE) == "Did you mean optim.lr?"


def test_a_name_like_no_other_gets_the_list_unless_the_cutoff_is_zero() -> None:
    assert did_you_mean("zzz", ["lr", "betas"], otherwise=OTHERWISE) == OTHERWISE
    assert did_you_mean("99999", ["00001", "00002"], cutoff=0.0, otherwise=OTHERWISE).startswith("Did you mean 0000")
    assert did_you_mean("anything", [], otherwise=OTHERWISE) == OTHERWISE


def test_no_other_module_looks_for_near_names_itself() -> None:
    sources = Path(drape.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if "difflib.get" in path.read_text(encoding="utf-8")] == ["errors.py"]
