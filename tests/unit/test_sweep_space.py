"""What may be searched over, and what is refused before anything starts."""

import math
from operator import attrgetter

import pytest

from drape.config import kind_of, override
from drape.errors import ConfigError
from drape.presets import tiny
from drape.sweep.space import READ_WITH, Parameter, Space, parse_parameter, split_choices


def test_each_way_to_search_is_read() -> None:
    assert parse_parameter("optim.lr=log:1e-4:3e-3") == Parameter(key="optim.lr", kind="log", low=1e-4, high=3e-3)
    assert parse_parameter("condition_drop=uniform:0:0.3").high == 0.3
    assert parse_parameter("finetune.rank=int:4:32").low == 4
    assert parse_parameter(" optim.kind = choice: adamw , sgd ").choices == ("adamw", "sgd")


def test_a_comma_inside_brackets_or_quotes_separates_no_choices() -> None:
    assert split_choices("[0.9,0.99],[0.9,0.999]") == ("[0.9,0.99]", "[0.9,0.999]")
    assert split_choices('"a,b",c') == ('"a,b"', "c")
    space = Space.parse(["optim.betas=choice:[0.9,0.99],[0.9,0.999]"])
    space.check(tiny())
    assert space.config(tiny(), {"optim.betas": "[0.9,0.999]"}).optim.betas == (0.9, 0.999)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optim.lr", "has no '='. Write --search optim.lr=log:1e-4:3e-3"),
        ("optim.rl=log:1e-4:3e-3", "Did you mean optim.lr?"),
        ("optim=choice:a,b", "optim is a section"),
        ("optim.lr=lin:1:2", "'lin' is no way to search"),
        ("optim.lr=logg:1:2", "Did you mean log?"),
        ("optim.lr=1e-4", "is no way to search"),
        ("optim.lr=log:1e-4", "is not LOW:HIGH in numbers"),
        ("optim.lr=log:a:b", "is not LOW:HIGH in numbers"),
        ("batch_size=int:1.5:8", "is not LOW:HIGH in whole numbers"),
        ("optim.lr=log:3e-3:1e-4", "expected LOW below HIGH"),
        ("optim.lr=uniform:0:inf", "is no range"),
        ("optim.lr=log:0:1", "expected a number above 0"),
        ("optim.kind=choice:adamw", "two or more different values"),
        ("optim.kind=choice:adamw,,sgd", "two or more different values"),
        ("optim.kind=choice:sgd,sgd", "two or more different values"),
        ("validation.pairs=int:8:64", "it changes what the score is measured on"),
        ("resolution=choice:[32,24],[64,48]", "the same for all trials"),
        ("name=choice:a,b", "the same for all trials"),
    ],
)
def test_what_cannot_be_searched_is_one_line_that_names_it(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_parameter(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["optim.lr=uniform:-1:1"], "--search optim.lr: optim.lr is -1.0"),
        (["batch_size=uniform:4:16"], "--search batch_size: .*valid integer"),
        (["optim.kind=choice:adamw,adma"], "--search optim.kind: .*adma"),
        (["diffusion.gamma=choice:1,high"], "--search diffusion.gamma: .*high"),
        (["accumulate=choice:1,3"], "--search accumulate: batch_size 8 is not a multiple"),
    ],
)
def test_a_value_that_never_works_is_refused_before_anything_starts(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Space.parse(texts).check(tiny())


def test_a_value_that_works_with_some_of_the_others_is_allowed() -> None:
    Space.parse(["accumulate=choice:1,3", "batch_size=choice:6,8"]).check(tiny())
    Space.parse(["optim.in_backward=choice:false,true", "optim.grad_clip=choice:0,1"]).check(tiny())


LEARNING_RATES = "optim.lr=log:1e-4:1e-2"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (
            ["finetune.rank=int:4:32"],
            "finetune.rank: no trial reads it, as finetune.train is all. It takes finet.*=lora",
        ),
        (["optim.momentum=choice:0,0.9"], "as optim.kind is adamw. It takes optim.kind=sgd"),
        (["optim.momentum=choice:0,0.9", "optim.kind=choice:adamw,adam"], "as optim.kind is adamw or adam. It takes"),
        (["loss.perceptual_max_t=uniform:0.1:0.5"], "It takes loss.perceptual=lpips or nlpd"),
        ([LEARNING_RATES, "diffusion.bias=uniform:-3:0"], "It takes diffusion.weighting=sigmoid"),
    ],
)
def test_a_setting_that_no_trial_reads_is_refused_with_what_switches_it_on(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Space.parse(texts).check(tiny())
    assert "\n" not in str(caught.value)


def test_a_setting_that_some_trial_reads_is_allowed() -> None:
    Space.parse(["optim.momentum=choice:0,0.9", "optim.kind=choice:adamw,sgd"]).check(tiny())
    Space.parse(["finetune.rank=int:1:2"]).check(override(tiny(), ["finetune.train=lora"]))


@pytest.mark.parametrize("key", READ_WITH)
def test_the_table_of_settings_that_are_read_with_others_names_what_exists(key: str) -> None:
    switch, values = READ_WITH[key]
    kind_of(key)
    assert [attrgetter(switch)(override(tiny(), [f"{switch}={value}"])) for value in values] == list(values)


@pytest.mark.parametrize("texts", [[], ["seed=int:0:3", "seed=int:0:5"]])
def test_no_search_and_a_setting_searched_twice_are_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"nothing is searched over|names seed twice"):
        Space.parse(texts)


def test_the_text_of_a_setting_gives_the_very_value_that_was_used() -> None:
    lr = parse_parameter("optim.lr=log:1.23444e-4:3e-3")
    assert lr.text(0.00071234567) == "0.0007123"
    assert float(lr.text(1.23444e-4)) == 1.23444e-4  # rounding never leaves the range
    space = Space((lr,))
    text = lr.text(math.pi / 2000)
    assert text == "0.001571"
    assert space.config(tiny(), {"optim.lr": text}) == override(tiny(), [f"optim.lr={text}"])


def test_a_grid_has_every_combination_once_and_no_real_numbers() -> None:
    rows = Space.parse(["seed=int:1:3", "optim.kind=choice:adamw,sgd"]).grid()
    assert rows[0] == {"seed": 1, "optim.kind": "adamw"}
    assert rows[1] == {"seed": 1, "optim.kind": "sgd"}
    assert len({tuple(row.values()) for row in rows}) == 6
    with pytest.raises(ConfigError, match=r"cannot enumerate optim.lr.*optim.lr=choice:0.0001,0.003"):
        Space.parse(["optim.lr=log:1e-4:3e-3"]).grid()
