"""What a model is: shapes, units and labels of classifiers and generators; models by name."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny import GENERATOR, LABELS, save_tiny_networks, tiny_networks

from jaxsynth.images import CAFFE, Preprocess, conversion, preprocess, to_rgb, write_png
from jaxsynth.inputs import choose_units
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.labels import sensitive_classes
from jaxsynth.models.layers import from_bgr, log_odds, softmax, to_bgr
from jaxsynth.models.network import activation_shapes
from jaxsynth.models.registry import (
    available,
    describe,
    load,
    load_encoder,
    register,
    to_model,
)

NAMES = ("cat", "dog", "bird")
RGB = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
IMAGENET = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TENSORFLOW = Preprocess((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), order="BGR")
SIGNED = Preprocess(range=(-1, 1))


def logits_of(params, image):
    return jnp.tanh(image.mean((0, 1)) @ params)


def blobs_of(params, image):
    hidden = image @ params  # (8, 8, 3)
    return {"hidden": hidden, "scores": hidden.mean((0, 1)), "features": image.mean((0, 1))[:2]}


def pooled(params, image):
    pool = image.mean((0, 1))
    return {"logits": jnp.append(pool, 0.0), "pool": pool}


def sized(size) -> Classifier:
    return Classifier(logits_of, np.eye(3, dtype=np.float32), size)


def classifier(apply=logits_of, **options) -> Classifier:
    return Classifier(apply, np.eye(3, dtype=np.float32), 8, **options)


def test_bare_logits_get_the_probability_family():
    model = classifier(labels=NAMES)
    assert model.logits == "logits" and model.classes == 3
    assert set(model.shapes) == {"logits", "prob", "log_prob", "log_odds"}
    out = model.activations(model.params, jnp.asarray(RGB[:, :8] / 255))
    np.testing.assert_allclose(out["prob"].sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(out["log_prob"]), out["prob"], rtol=1e-6)


@pytest.mark.parametrize("names, found", [(NAMES, "scores"), ((), "features")])
def test_logits_of_a_dict_are_found(names, found):
    assert classifier(blobs_of, labels=names).logits == found
    assert classifier(blobs_of, logits="scores").shapes["prob"] == (3,)


def test_what_the_model_gives_is_not_computed_anew():
    def apply(params, image):
        return blobs_of(params, image) | {"prob": jnp.zeros(3)}

    model = classifier(apply, logits="scores")
    assert not model.activations(model.params, jnp.ones((8, 8, 3)))["prob"].any()


def test_half_precision_logits_are_widened():
    model = classifier(lambda params, image: image.mean((0, 1)).astype(jnp.bfloat16))
    assert model.activations(model.params, jnp.ones((8, 8, 3)))["log_odds"].dtype == jnp.float32


def test_an_encoder_has_no_logits():
    model = classifier(blobs_of, logits=None)
    assert set(model.shapes) == {"hidden", "scores", "features"} and model.classes == 0


def test_same_function_is_recognised_by_jit():
    first, second = classifier().activations, classifier().activations
    assert first is not second and first == second and hash(first) == hash(second)
    assert first != classifier(blobs_of, logits="scores").activations


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: classifier(labels=("a", "b")), "has 2 labels, but its 'logits' has shape (3,)"),
        (lambda: classifier(blobs_of, logits="score").shapes, "did you mean scores"),
        (lambda: classifier(lambda p, x: (x, x)), "expected an array or a dict of arrays"),
        (lambda: classifier(lambda p, x: x), "no blob that is a vector of logits"),
        (lambda: classifier(lambda p, x: x @ p.missing), "<lambda>(params, x) fails for one x"),
        (lambda: classifier(np.ones(3)), "expected a function"),
        (lambda: classifier(labels=NAMES).unit_of("bid"), "did you mean bird"),
        (lambda: classifier(labels=NAMES).unit_of(3), "expected a label or 0 to 2"),
        (lambda: classifier(labels=("a", "a", "b")).unit_of("a"), "did you mean a (0) or a (1)?"),
        (
            lambda: classifier(labels=("crane", "crane", "b")).logit("crane"),
            "did you mean crane (0) or crane (1)?",
        ),
        (lambda: Preprocess(order="GBR"), "expected RGB or BGR"),
        (lambda: Preprocess(std=(1, 0, 1)), "std must be above 0"),
        (lambda: Preprocess(mean=(1, 2)), "expected 3 numbers"),
        (lambda: Generator(paint, 1.0, 2).shapes, "'generator': paint(params, x) fails"),
        (lambda: generator(apply=lambda p, x: {"picture": x}).shapes, "no blob 'image'"),
        (lambda: generator(apply=lambda p, x: x).shapes, "expected (H, H, 3)"),
        (lambda: generator(box=(2, -2)), "not (low, high)"),
        (
            lambda: Classifier({"w": 1.0}, logits_of, 8),
            "apply is a dict, expected a function: apply",
        ),
        (lambda: classifier(nn.Dense(3)), "apply is a Flax module: pass module.apply and its vari"),
        (lambda: Classifier(logits_of, None, 8), "params is None, expected its parameters"),
        (lambda: sized((16, 16)), "size is (16, 16), expected a whole number of pixels, such as"),
        (lambda: sized("16"), "size is '16', expected a whole number"),
        (lambda: sized(16.0), "size is 16.0, expected a whole number"),
        (lambda: sized(0), "size is 0, expected a whole number"),
        (lambda: classifier(labels=None), "labels is None, expected a list of names"),
        (lambda: classifier(labels="cat"), "labels is a string, expected a list of names"),
        (lambda: classifier(labels={0: "a"}), "labels is a dict, expected a list of names"),
        (lambda: classifier(labels={"a", "b", "c"}), "expected a list of names"),
        (lambda: classifier(preprocess="imagenet"), "preprocess is 'imagenet', expected a Prepro"),
        (lambda: classifier(sensitive=9), "sensitive is 9, expected the number of a class, 0 to 2"),
        (lambda: classifier(labels=NAMES, sensitive="dog"), "tuple of numbers ('dog' is 1)"),
        (lambda: classifier(labels=NAMES, sensitive=(0, 3)), "sensitive is (0, 3), expected"),
        (lambda: classifier(lambda p, x: x[:1, 0]), "it gives logits (1, 3); return one number a"),
        (lambda: classifier(lambda p, x: x.mean((0, 1)).argmax()), "it gives logits ()"),
        (
            lambda: classifier(blobs_of, logits="head"),
            "no blob 'head' of logits; it has hidden, sc",
        ),
        (lambda: classifier(blobs_of, logits="hidden"), "its 'hidden' has shape (8, 8, 3): return"),
        (lambda: classifier(pooled, labels=NAMES), "3 labels, but its 'logits' has shape (4,)"),
        (
            lambda: classifier(lambda p, x: x[0, 0].astype("uint8")),
            "'logits' are uint8, which have",
        ),
        (
            lambda: classifier(name="my:net"),
            "name 'my:net': a name has letters, digits, _, - and .",
        ),
        (lambda: classifier().named(""), "name '': a name has letters"),
        (
            lambda: Classifier(logits_of, np.float32([[1, np.nan]]), 8),
            "params holds numbers that are",
        ),
        (
            lambda: Classifier(logits_of, {"head": {"bias": jnp.float32([np.inf])}}, 8),
            "params['head']['bias'] holds numbers that are not finite",
        ),
        (
            lambda: Generator(paint_of, np.ones((8, 48)), 9),
            "paint_of(params, x) fails for one x of",
        ),
        (lambda: Generator(paint, 1.0, "6"), "code_size is '6', expected a whole number of units"),
        (lambda: generator(preprocess="caffe"), "preprocess is 'caffe', expected a Preprocess"),
        (lambda: register("m9", classifier()), "Classifier 'classifier' is no function that makes"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_classes_go_by_label_and_number():
    model = classifier(labels=("cat", "7", "dog"))
    assert [model.unit_of(label) for label in ("cat", "7", "2", 1)] == [0, 1, 2, 1]
    assert classifier().class_names == ("0", "1", "2")


def test_classes_of_one_name_are_told_apart():
    model = classifier(labels=("crane", "crane", "crane (0)"))
    assert model.labels == model.class_names == ("crane (0) (0)", "crane (1)", "crane (0) (2)")
    assert model.unit_of("crane (1)") == 1 and str(model.log_prob("crane (1)")).split(":")[2] == "1"
    assert choose_units(["crane*"], model.class_names) == [0, 1, 2]


def test_several_classes_may_be_sensitive():
    p = np.array([[0.1, 0.2, 0.7], [1, 0, 0]])
    model = classifier(labels=NAMES, sensitive=(0, 2))
    assert model.sensitive_name == "cat + bird"
    np.testing.assert_allclose(model.sensitive_probability(p), [0.8, 1])
    np.testing.assert_array_equal(classifier(sensitive=2).sensitive_probability(p), p[:, 2])
    assert classifier().sensitive_classes == () and classifier().sensitive_name == ""


def test_names_say_what_is_sensitive():
    assert sensitive_classes(("SFW", "NSFW")) == 1 and sensitive_classes(LABELS) is None
    assert sensitive_classes(("drawings", "Hentai", "neutral", "porn", "SEXY")) == (1, 3, 4)


def test_name_changes_nothing_else():
    model = classifier(labels=NAMES)
    other = model.named("pets")
    assert (other.name, other.role, other.labels) == ("pets", "pets", NAMES)
    assert other != model and other.params is model.params and other.shapes == model.shapes


def test_caffe_units_are_those_of_version_0_1():
    square = RGB[:, :8]
    assert (to_bgr(jnp.float32(RGB)) == CAFFE.to_input(RGB)).all()
    assert (from_bgr(to_bgr(jnp.float32(RGB))) == RGB).all()
    assert (CAFFE.to_input(square) == preprocess(square, "simple", 8)).all()
    x = 100 * np.random.default_rng(1).standard_normal((4, 4, 3)).astype(np.float32)
    x[0, 0], x[0, 1] = np.nan, np.inf
    assert (CAFFE.show(x) == to_rgb(x)).all()


@pytest.mark.parametrize("units", [CAFFE, Preprocess(), IMAGENET, TENSORFLOW, SIGNED])
def test_units_and_back(units):
    np.testing.assert_allclose(units.to_rgb(units.to_input(RGB)), RGB, atol=1e-3)
    assert (units.show(units.to_input(RGB)) == RGB).all()


def test_units_by_hand():
    expected = (RGB / 255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    np.testing.assert_allclose(IMAGENET.to_input(RGB), expected, atol=1e-6)
    np.testing.assert_allclose(TENSORFLOW.to_input(RGB), RGB[..., ::-1] / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(SIGNED.to_input(RGB), RGB / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("old", [CAFFE, IMAGENET, TENSORFLOW, SIGNED])
@pytest.mark.parametrize("new", [CAFFE, IMAGENET, TENSORFLOW, SIGNED])
def test_conversion_is_by_way_of_rgb(old, new):
    convert = conversion(old, new)
    if old is new:
        assert convert is None
        return
    converted = convert(jnp.asarray(old.to_input(RGB)))
    np.testing.assert_allclose(converted, new.to_input(RGB), atol=2e-4)
    hash(convert)  # a static structure holds it


def test_resize_decides_no_units():
    assert conversion(CAFFE, Preprocess(*CAFFE.units, resize="yahoo")) is None


def test_picture_of_any_size_becomes_an_input():
    model = classifier(preprocess=CAFFE)
    assert (model.input_of(RGB) == preprocess(RGB, "simple", 8)).all()


def paint(params, code):
    return jnp.broadcast_to(code[:3] * params, (4, 4, 3))


def paint_of(params, code):
    return (code @ params).reshape(4, 4, 3)


def generator(apply=paint, **options) -> Generator:
    return Generator(apply, 1.0, 6, **options)


def test_generator_of_a_bare_image():
    model = generator(box=(-2, 3), image="picture")
    assert model.shapes == {"picture": (4, 4, 3)} and model.image_size == 4
    assert (model.code.lower == -2).all() and (model.code.upper == 3).all()
    assert model.code.upper.shape == (6,) and model.load_encoder() is None


def test_encoder_may_be_loaded_late():
    model = classifier()
    assert generator(encoder=lambda: model).load_encoder() is model
    assert generator(encoder=model).load_encoder() is model


def test_a_model_says_what_it_is_without_its_weights():
    tiny = {role: to_model(network) for role, network in tiny_networks().items()}
    assert repr(tiny["generator"]) == "Generator('tiny_generator', code of 12)"
    assert repr(tiny["places"]) == "Classifier('tiny_places', 16 x 16, 5 classes)"


def test_tiny_networks_become_models():
    networks = tiny_networks()
    for role, network in networks.items():
        model = to_model(network, role)
        assert model.name == role and isinstance(model, Generator) == (role == "generator")
        assert model.apply is network.apply
        shapes = activation_shapes(network.info.config)
        assert model.shapes == shapes and dataclasses.replace(model).shapes == shapes
    places, nsfw = to_model(networks["places"]), to_model(networks["nsfw"])
    assert (places.logits, places.labels, places.sensitive) == ("fc8", LABELS, None)
    assert (nsfw.sensitive, nsfw.size, nsfw.preprocess.units) == (1, 14, CAFFE.units)
    assert places.preprocess.resize == "resize16"


@pytest.mark.parametrize("gap", [0, 40, 80])
def test_a_thousand_classes_at_saturation(gap):
    """Values and gradients in float32 equal the definition; in float64 for all pairs of classes."""
    rng = np.random.default_rng(gap)
    logits, w = 3 * rng.standard_normal(1000), rng.standard_normal(1000)
    logits[7] += gap
    p = np.exp(logits - logits.max())
    others = np.array([np.delete(p, i).sum() for i in range(1000)])
    x, p = jnp.asarray(logits, jnp.float32), p / p.sum()
    np.testing.assert_allclose(log_odds(x), logits - logits.max() - np.log(others), rtol=2e-5)
    gradient = jax.grad(lambda x: jnp.vdot(w.astype(np.float32), softmax(x)))(x)
    pairs = p * (p * (w[:, None] - w)).sum(-1)
    np.testing.assert_allclose(gradient, pairs, rtol=1e-3, atol=1e-5 * abs(pairs).max())
    gradient = jax.grad(lambda x: log_odds(x)[7])(x)
    rest = np.where(np.arange(1000) == 7, 0, p)
    expected = np.where(np.arange(1000) == 7, 1, -rest / rest.sum())
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_networks(folder)
    return folder


def test_models_are_loaded_by_file_and_called_by_name(folder):
    model = load(f"scenes={folder / 'places.safetensors'}")
    assert model.name == "scenes" and model.info.network == "tiny_places"
    assert model.info.file == "places.safetensors" and len(model.info.sha256) == 64
    generator = load(folder / "generator.safetensors", "float32")
    assert generator.code_size == GENERATOR.code and generator.image == "deconv0"
    assert generator.code.lower is None and generator.code.upper.shape == (GENERATOR.code,)
    encoder = generator.load_encoder()
    assert encoder.info.record == model.info.record | {"name": encoder.info.asked}
    assert load_encoder(generator, folder / "nsfw.safetensors").name == "tiny_nsfw"
    with pytest.raises(ValueError, match="is a generator, expected the encoder"):
        load_encoder(generator, folder / "generator.safetensors")
    assert "generator, code 12 -> 16 pixels" in describe(folder / "generator.safetensors")
    assert "classifier, 16 pixels -> 5 classes" in describe(folder / "places.safetensors")


def test_models_are_registered(monkeypatch):
    monkeypatch.setattr("jaxsynth.models.registry._made", {})
    model = classifier(labels=NAMES)
    register("mine", lambda: model)
    assert load("mine") is model and "mine" in available() and describe("mine")
    assert load("pets=mine").name == "pets"
    register("broken", lambda: None)
    with pytest.raises(ValueError, match="no Classifier or Generator"):
        load("broken")
    with pytest.raises(ValueError, match="cannot be called 'a/b'"):
        register("a/b", lambda: model)


def test_unknown_names_are_told_with_the_near_ones():
    with pytest.raises(ValueError, match="did you mean pocket_places"):
        load("pocket_place")
    assert {"open_nsfw", "pocket_generator", "efficientnet_lite0"} <= set(available())


def test_text_travels_in_a_png(tmp_path):
    write_png(tmp_path / "x.png", RGB, {"jaxsynth": "Größe"})
    with Image.open(tmp_path / "x.png") as image:
        assert image.text == {"jaxsynth": "Größe"}
        assert (np.asarray(image) == RGB).all()
