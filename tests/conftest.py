"""What every test shares: shapes checked at run time, reproducible hypothesis, one torch thread, the markers."""

import importlib.util
import os
import pkgutil

import hypothesis
import pytest

# Small tensors gain nothing from threads, and one thread gives the same sums on every machine.  Set before torch is
# imported, and handed on to the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Every jaxtyping annotation of drape is executed in the tests, and only there.  The hook must precede the first import
# of drape.  It breaks torch.compile(fullgraph=True), so the tests marked `compile` run with DRAPE_CHECK_SHAPES=0, and
# numba, which cannot cache a wrapped function, so it leaves the compiled mannequin world alone.
if os.environ.get("DRAPE_CHECK_SHAPES", "1") != "0":
    from jaxtyping import install_import_hook

    package = importlib.util.find_spec("drape")
    assert package is not None
    modules = [module.name for module in pkgutil.iter_modules(package.submodule_search_locations)]
    install_import_hook([f"drape.{name}" for name in modules if name != "mannequin"], "beartype.beartype")

# A first torch call takes longer than hypothesis' deadline of 200 ms; derandomised, a failure fails again.
hypothesis.settings.register_profile("drape", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("drape")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the gpu tests where there is no CUDA device."""
    marked = [item for item in items if "gpu" in item.keywords]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
