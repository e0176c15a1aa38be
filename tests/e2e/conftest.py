"""What the end-to-end tests share: a small mannequin data set made by the command itself."""

from pathlib import Path

import pytest

from drape.cli.main import main


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve people to train on and four to test on, 64x48, in the VITON-HD layout."""
    root = tmp_path_factory.mktemp("data") / "people"
    assert (
        main(
            [
                "mannequin",
                str(root),
                "--people",
                "12",
                "--test",
                "4",
                "--size",
                "64x48",
                "--seed",
                "3",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    return root
