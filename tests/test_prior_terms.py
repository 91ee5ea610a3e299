"""What keeps a search near natural images: start codes, the prior term, jitter."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short import (
    Run,
    Sweep,
    Term,
    encode,
    parse_term,
    plan,
    problem_of,
    steps_of,
    synthesize,
)
from test_launchers import launch
from tiny import GENERATOR, compiles_once, in_float64, random_params, tiny_networks

from jaxsynth.balance import objective
from jaxsynth.models.caffe_networks import AlexNetConfig, Conv
from jaxsynth.models.network import CodeStats, NetworkInfo, build_network
from jaxsynth.models.registry import load_encoder, to_model
from jaxsynth.models.weights import save_network
from jaxsynth.recipes import RECIPES
from jaxsynth.starts import make_box, start_codes

SCENE = Term("places", "fc8", (1,), 1.0, "bar")
RISK = Term("nsfw", "fc8", (1,), 0.5, "NSFW")
SMOOTH = Term("generator", "image_tv", (0,), -0.01)
SHORT = dataclasses.replace(RECIPES["goh"], steps=4, lr_start=0.5)
ENCODER = AlexNetConfig(  # sees a crop of the generator's 16x16 image
    size=14, convs=(Conv("conv1", 5, 3, 1, 1),), dense=(("fc6", GENERATOR.code),), classes=3
)
MEAN = np.linspace(0.2, 2.0, GENERATOR.code).astype(np.float32)
SIGMA = np.linspace(1.0, 0.3, GENERATOR.code).astype(np.float32)


@pytest.fixture(scope="module")
def networks():
    """The tiny networks, the generator with statistics of its code, and an encoder."""
    networks = tiny_networks()
    generator = networks["generator"]
    stats = CodeStats(generator.code.upper, MEAN, SIGMA)
    info = NetworkInfo("tiny_encoder", ENCODER, ("a", "b", "c"))
    encoder = build_network(info, random_params(ENCODER, 4, 0.4))
    return networks | {"generator": generator._replace(code=stats), "encoder": encoder}


def runs_of(seeds, *terms):
    return [Run(seed, terms or (SCENE, RISK)) for seed in seeds]


def start_of(count):
    code = np.random.default_rng(0).uniform(0, 2, GENERATOR.code)
    return np.tile(code, (count, 1))


def moved(image, dy, dx):
    """An image (16, 16, 3) moved down by dy and right by dx, borders replicated."""
    rows, columns = (jnp.clip(jnp.arange(16) - d, 0, 15) for d in (dy, dx))
    return image[rows][:, columns]


# ---------------------------------------------------------------- start codes


def test_start_codes_follow_the_statistics_of_the_code(networks):
    upper = networks["generator"].code.upper
    free = dataclasses.replace(SHORT, start="code", box="none")
    boxes = [make_box(r, 12, upper, np.float32) for r in (free, SHORT)]
    root, seeds = jax.random.key(0), np.arange(5000)
    codes = start_codes(free, boxes[0], root, seeds, networks["generator"].code)
    np.testing.assert_allclose(codes.mean(axis=0), MEAN, atol=0.06)
    np.testing.assert_allclose(codes.std(axis=0), SIGMA, rtol=0.04)
    plain = dataclasses.replace(free, start="normal")
    noise = start_codes(plain, boxes[0], root, seeds)  # the same draw
    np.testing.assert_allclose(codes, MEAN + SIGMA * noise, rtol=1e-5, atol=1e-5)
    start = dataclasses.replace(SHORT, start="code")
    clipped = start_codes(start, boxes[1], root, seeds, networks["generator"].code)
    np.testing.assert_array_equal(clipped, np.clip(codes, 0, upper))
    assert (np.asarray(clipped) == 0).any()
    alone = start_codes(start, boxes[1], root, seeds[17:18], networks["generator"].code)
    np.testing.assert_array_equal(alone[0], clipped[17])


def test_a_generator_without_statistics_is_refused(networks):
    generator = networks["generator"]
    settings = Sweep(dataclasses.replace(SHORT, start="code"))
    without = networks | {"generator": generator._replace(code=CodeStats(generator.code.upper))}
    with pytest.raises(ValueError, match=r"no mean and sigma .* --start=clipped_normal"):
        plan(without, runs_of([0]), settings)
    plan(without, runs_of([0]), settings, start_of(1))  # given codes need none


# ---------------------------------------------------------------- prior


@pytest.mark.parametrize(("prior", "scaled"), [(0.3, False), (1.0, False), (0.3, True)])
def test_the_prior_term_is_the_formula(networks, x64, prior, scaled):
    networks = in_float64(networks)
    recipe = dataclasses.replace(SHORT, prior=prior, prior_scaled=scaled, decay=0.9)
    generator, encoder, places = (networks[r] for r in ("generator", "encoder", "places"))

    @jax.jit
    def by_hand(z):
        def logit(z):
            image = generator.apply(generator.params, z)["deconv0"]
            return places.apply(places.params, image)["fc8"][1]

        image = generator.apply(generator.params, z)["deconv0"]
        code = encoder.apply(encoder.params, image[1:15, 1:15])["fc6"]
        return jax.grad(logit)(z), code

    settings = Sweep(recipe, precision="float64", batch=1, record=(1, 2, 3, 4))
    result = synthesize(networks, runs_of([0], SCENE), settings, start_of(1))
    z = start_of(1)[0]
    for t in range(4):
        gradient, code = (np.asarray(x) for x in by_hand(z))
        assert 0.1 < np.abs(code).mean() < 10  # a pull of the size of the codes
        rate = 0.5 * (1 - t / 4)
        own = prior * (rate / 0.5 if scaled else 1)
        step = rate * gradient / np.abs(gradient).mean() + own * (code - z)
        z = 0.9 * np.clip(z + step, 0, generator.code.upper)
        np.testing.assert_allclose(result.recorded_codes[0, t], z, rtol=1e-8, atol=1e-10)


def test_without_a_prior_the_encoder_does_not_count(networks):
    settings = Sweep(SHORT, batch=2)
    bare = {role: n for role, n in networks.items() if role != "encoder"}
    todo, without = (plan(n, runs_of([0, 1]), settings) for n in (networks, bare))
    [one], [other] = todo.structures, without.structures
    assert one.request == other.request and one.judge == other.judge
    assert set(todo.params) == set(without.params) == {"generator", "places", "nsfw"}
    result, plain = (synthesize(n, runs_of([0, 1]), settings) for n in (networks, bare))
    np.testing.assert_array_equal(result.codes, plain.codes)


def test_the_encoder_neither_judges_nor_is_weighed(networks):
    settings = Sweep(dataclasses.replace(SHORT, prior=0.2), batch=2)
    todo = plan(networks, runs_of([0, 1]), settings)
    assert [c.name for c in todo.judge.classifiers] == ["places", "nsfw"]
    assert todo.judge.encoder is None
    result = synthesize(networks, runs_of([0, 1]), settings)
    assert set(result.last.watched) == set(result.watched) == {"places", "nsfw"}
    with pytest.raises(ValueError, match="network 'encoder' does not exist"):
        parse_term("encoder:fc6:0:1", networks)


def test_wrong_encoders_are_refused(networks):
    settings = Sweep(dataclasses.replace(SHORT, prior=0.2))
    generator = networks["generator"]
    named = generator._replace(info=dataclasses.replace(generator.info, encoder="somebody"))
    bare = {role: n for role, n in networks.items() if role != "encoder"} | {"generator": named}
    with pytest.raises(ValueError, match=r"no network stands for 'encoder'.*\(somebody\).*of 0"):
        plan(bare, runs_of([0]), settings)
    with pytest.raises(ValueError, match=r"gives codes of 8 units, generator .* takes 12"):
        plan(networks | {"encoder": networks["nsfw"]}, runs_of([0]), settings)
    with pytest.raises(ValueError, match=r"gives codes of 8 units, generator .* takes 12"):
        encode(networks["nsfw"], generator, np.zeros((14, 14, 3), np.float32))
    other = generator._replace(info=dataclasses.replace(generator.info, encoder_blob="fc7"))
    with pytest.raises(ValueError, match="no classifier with a blob 'fc7'"):
        plan(networks | {"generator": other}, runs_of([0]), settings)
    with pytest.raises(ValueError, match="stands for 'encoder': expected a classifier"):
        plan(networks | {"encoder": generator}, runs_of([0]), settings)


# ---------------------------------------------------------------- jitter


def steps_by_hand(networks, balance, rate):
    """The function from a code (D,) to one step from it by each offset of up to a pixel: (9, D)."""
    generator, places, nsfw = (networks[r] for r in ("generator", "places", "nsfw"))

    def draw(z):
        return generator.apply(generator.params, z)["deconv0"]

    def smoothness(z):
        image = draw(z)
        across = jnp.abs(jnp.diff(image, axis=0)).mean() + jnp.abs(jnp.diff(image, axis=1)).mean()
        return -0.01 * across

    def scene(im):
        return places.apply(places.params, im)["fc8"][1]

    def risk(im):
        return 0.5 * nsfw.apply(nsfw.params, im[1:15, 1:15])["fc8"][1]

    def step(z, offset):
        image, pull = jax.vjp(lambda c: moved(draw(c), *offset), z)
        g_scene, g_risk, own = (
            jax.grad(scene)(image),
            jax.grad(risk)(image),
            jax.grad(smoothness)(z),
        )
        if balance == "sum":
            gradient = pull(g_scene + g_risk)[0] + own
        else:
            mean_risk = jnp.abs(g_risk[1:15, 1:15]).mean()
            [both] = pull(g_scene / jnp.abs(g_scene).mean() + 0.5 * g_risk / mean_risk)
            gradient = 1.5 * both / jnp.abs(both).mean() + 0.01 * own / jnp.abs(own).mean()
        after = z + rate * gradient / jnp.abs(gradient).mean()
        return jnp.clip(after, 0, generator.code.upper)

    offsets = jnp.array(list(itertools.product((-1, 0, 1), repeat=2)))
    return jax.jit(lambda z: jax.vmap(step, (None, 0))(z, offsets))


@pytest.mark.parametrize("balance", ["sum", "image"])
def test_a_step_is_that_of_the_moved_image(networks, x64, balance):
    """Both classifiers see the same move; the generator's own term sees none."""
    networks = in_float64(networks)
    recipe = dataclasses.replace(SHORT, steps=2, schedule="constant", jitter=1)
    settings = Sweep(recipe, balance=balance, precision="float64", batch=40, record=(1,))
    runs = runs_of(range(40), SCENE, RISK, SMOOTH)
    start = start_of(40)
    result = synthesize(networks, runs, settings, start)
    by_hand = steps_by_hand(networks, balance, 0.5)
    off = np.abs(result.recorded_codes[:, 0, None] - by_hand(start[0])).max(axis=-1)  # (40, 9)
    np.testing.assert_array_equal((off < 1e-9).sum(axis=1), 1)
    first = off.argmin(axis=1)
    assert set(first) == set(range(9))  # every offset is met, over the seeds
    second = []
    for i in range(6):
        off = np.abs(result.codes[i] - by_hand(result.recorded_codes[i, 0])).max(axis=-1)
        assert off.min() < 1e-8
        second.append(off.argmin())
    assert (np.array(second) != first[:6]).any()  # and another one at another step


def test_finished_images_are_judged_as_they_are(networks):
    recipe = dataclasses.replace(SHORT, steps=1, jitter=3)
    runs = runs_of(range(6), SCENE)
    start = start_of(6).astype(np.float32)
    result = synthesize(networks, runs, Sweep(recipe, batch=6), start)
    request, params, run = problem_of(networks, SCENE)
    still = jax.jit(lambda z: objective(request.system, params, run, z)[0])
    wanted = [still(z) for z in result.codes]
    np.testing.assert_allclose(result.last.objective, wanted, rtol=1e-4)
    seen = result.objective[:, 0]  # of one start code, seen six times
    assert np.ptp(seen) > 1e-3 * np.abs(seen).max()


def test_the_seed_decides_the_jitter_of_given_start_codes(networks):
    settings = Sweep(dataclasses.replace(SHORT, jitter=3), batch=4)
    start = start_of(4).astype(np.float32)
    result = synthesize(networks, runs_of([3, 9, 9, 2**32 - 1]), settings, start)
    np.testing.assert_array_equal(result.codes[1], result.codes[2])
    assert len(np.unique(result.codes, axis=0)) == 3


def test_offsets_are_the_same_in_both_precisions(networks):
    recipe = dataclasses.replace(SHORT, steps=1, jitter=3)
    single = synthesize(networks, runs_of(range(6)), Sweep(recipe, batch=6), start_of(6))
    with jax.enable_x64(True):
        settings = Sweep(recipe, batch=6, precision="float64")
        double = synthesize(in_float64(networks), runs_of(range(6)), settings, start_of(6))
    np.testing.assert_allclose(single.objective, double.objective, rtol=1e-4)
    assert np.ptp(double.objective) > 1e-2 * np.abs(double.objective).max()


# ---------------------------------------------------------------- all three together

ALL = dataclasses.replace(SHORT, steps=6, start="code", prior=0.2, jitter=2)


def test_bit_equal_whatever_the_neighbours_and_the_place(networks):
    settings = Sweep(ALL, batch=4)
    many = synthesize(networks, runs_of(range(9)), settings)
    again = synthesize(networks, runs_of(range(9)), settings)
    few = synthesize(networks, runs_of([8, 2]), settings)
    for name in ("codes", "best_codes", "objective"):
        np.testing.assert_array_equal(getattr(again, name), getattr(many, name))
        np.testing.assert_array_equal(getattr(few, name)[0], getattr(many, name)[8])
        np.testing.assert_array_equal(getattr(few, name)[1], getattr(many, name)[2])
    np.testing.assert_array_equal(few.last.image[0], many.last.image[8])
    assert many.sound.all() and np.isfinite(many.codes).all()


def test_one_compilation(networks):
    recipe = dataclasses.replace(ALL, steps=2)
    with compiles_once():
        for unit, seeds in ((0, 3), (3, 7)):
            term = Term("places", "fc8", (unit,), 1.0)
            # a batch that no other test has: they share the caches
            synthesize(networks, runs_of(range(seeds), term), Sweep(recipe, batch=5))


def test_scan_blocks_and_single_steps_agree(networks, x64):
    networks = in_float64(networks)
    todo = plan(networks, runs_of([5, 6], SCENE), Sweep(ALL, precision="float64"))
    block, single = (steps_of(todo, blocks)[0] for blocks in ([6], [1] * 6))
    np.testing.assert_allclose(block, single, rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prior": -0.1}, "prior is -0.1"),
        ({"prior": 1.5}, "prior is 1.5"),
        ({"prior": float("nan")}, "prior is nan"),
        ({"jitter": -1}, "jitter is -1"),
        ({"jitter": 1.5}, "jitter is 1.5"),
        ({"start": "codes"}, "start is 'codes'"),
        ({"jitter": 16}, "jitter is 16, but the generator's images have only 16 pixels"),
    ],
)
def test_wrong_values_are_refused(networks, change, said):
    with pytest.raises(ValueError, match=said):
        plan(networks, runs_of([0]), Sweep(dataclasses.replace(SHORT, **change)))


def test_flags_and_the_encoder_that_the_generator_names(networks, tmp_path):
    generator = networks["generator"]
    encoder = str(tmp_path / "encoder.safetensors")
    named = generator._replace(info=dataclasses.replace(generator.info, encoder=encoder))
    for role, network in (networks | {"generator": named, "orphan": generator}).items():
        save_network(tmp_path / f"{role}.safetensors", network)
    files = [f"--{r}={tmp_path / r}.safetensors" for r in ("generator", "nsfw", "places")]
    out = tmp_path / "out"
    asked = ["--seeds=2", "--steps=3", "--prior=0.2", "--jitter=2", "--start=code"]
    done = launch("scene", "--scenes=abbey", *files, *asked, f"--out={out}")
    assert done.returncode == 0, done.stderr
    config = json.loads((out / "config.json").read_text())
    recipe = config["sweep"]["recipe"]
    assert (recipe["prior"], recipe["jitter"], recipe["start"]) == (0.2, 2, "code")
    assert config["inputs"]["encoder"]["file"] == "encoder.safetensors"
    assert "encoder" not in (out / "metrics.csv").read_text()

    orphan = launch(
        "scene",
        "--scenes=abbey",
        *files[1:],
        f"--generator={tmp_path}/orphan.safetensors",
        "--prior=0.2",
    )
    assert orphan.returncode == 2
    assert "names no encoder: give --encoder" in orphan.stderr


def test_a_generator_knows_its_encoders_file(networks, tmp_path):
    path = tmp_path / "encoder.safetensors"
    digest = save_network(path, networks["places"])
    generator = networks["generator"]

    def trained_for(sha256):
        info = dataclasses.replace(generator.info, encoder_sha256=sha256)
        return to_model(generator._replace(info=info))

    assert load_encoder(trained_for(digest), path).name == networks["places"].name
    assert load_encoder(trained_for(""), path).name == networks["places"].name  # it says nothing
    with pytest.raises(ValueError, match=f"of sha256 {'0' * 64}, but .* has {digest}: give --enc"):
        load_encoder(trained_for("0" * 64), path)
