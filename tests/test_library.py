"""The library as house.md's first page shows it: own models, objectives, optimizers; folders."""

import io
import json
import threading
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from launching import run
from PIL import Image
from tiny import LABELS, save_tiny_networks

import jaxsynth as js
from jaxsynth.ask_tell import Seen, Setting
from jaxsynth.image_files import read_image
from jaxsynth.maximize import Run, Settings, plan
from jaxsynth.models import compiled, registry
from jaxsynth.repeat import repeat

SMALL = {"recipe": js.recipes.goh(steps=4), "batch": 4, "progress": False}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_tiny_networks(folder)
    return folder


@pytest.fixture(scope="module")
def gen(weights) -> js.Generator:
    return js.load(weights / "generator.safetensors")


@pytest.fixture(scope="module")
def places(weights) -> js.Classifier:
    return js.load(f"places={weights / 'places.safetensors'}")


@pytest.fixture(scope="module")
def nsfw(weights) -> js.Classifier:
    return js.load(f"nsfw={weights / 'nsfw.safetensors'}")


# ---- one run, many runs


def test_one_neuron(gen, places, tmp_path):
    result = js.maximize(places.logit("bar"), gen, seed=3, **SMALL)
    assert result.image.shape == (16, 16, 3) and result.image.dtype == np.uint8
    assert result.raw.dtype == np.float32
    np.testing.assert_array_equal(result.image, gen.preprocess.show(result.raw))
    assert result.objective.shape == (4,) and result.status == "ok" and result.which == "best"
    assert result.row["objective_best"] >= result.row["objective_last"]
    assert result.row["activation_1_best"] == pytest.approx(result.row["objective_best"])
    drawn = gen.apply(gen.params, jnp.asarray(result.code))[gen.image]
    np.testing.assert_allclose(drawn, result.raw, rtol=1e-4, atol=1e-3)
    assert set(result.activations) == {"places"}

    result.save(tmp_path / "bar.png")
    with Image.open(tmp_path / "bar.png") as file:
        np.testing.assert_array_equal(np.asarray(file), result.image)
        said = json.loads(file.text["jaxsynth"])
    assert said["objective"] == "places:fc8:bar:1.0" and said["seed"] == 3
    assert said["sweep"]["recipe"]["steps"] == 4 and said["networks"]["places"]["sha256"]
    with pytest.raises(ValueError, match=r"ends with \.png"):
        result.save(tmp_path / "bar.jpg")
    assert "bar 0." in result._repr_html_() and result._repr_png_().startswith(b"\x89PNG")
    assert "seed 3: ok" in repr(result)


def test_a_sweep_is_one_compilation_and_a_table(gen, places, nsfw):
    objectives = {name: places.log_prob(name) for name in ("bar", "dam")}
    runs = js.sweep(objectives, gen, seeds=range(3), classifiers=[nsfw], **SMALL)
    assert len(runs) == 6 and runs["bar"].images.shape == (3, 16, 16, 3)
    assert runs.codes.shape == runs.best_codes.shape == runs.start_codes.shape == (6, 12)
    assert [row["row"] for row in runs.table] == ["bar"] * 3 + ["dam"] * 3
    assert [row["column"] for row in runs["dam"].table] == ["seed 0", "seed 1", "seed 2"]
    assert [row["run"] for row in runs["dam"].table] == [3, 4, 5]
    assert {"nsfw_last", "nsfw_best", "top_places", "p_top_places", "status"} <= set(runs.table[0])
    np.testing.assert_array_equal(runs[4].image, runs["dam"][1].image)
    assert len(runs[1:3]) == 2 and [one.run.seed for one in runs] == [0, 1, 2] * 2
    with pytest.raises(ValueError, match="did you mean bar"):
        runs["baar"]
    with pytest.raises(IndexError):
        runs[6]
    alone = js.maximize(places.log_prob("dam"), gen, seed=1, classifiers=[nsfw], **SMALL)
    np.testing.assert_array_equal(alone.code, runs["dam"][1].code)
    page = runs._repr_html_()
    assert page.count("<img") == 6 and "dam · seed 2" in page


def test_what_is_sensitive_waits_for_a_click(gen, nsfw):
    runs = js.sweep(nsfw.log_odds("NSFW") * 1.0, gen, seeds=4, **SMALL)
    high = [row[f"nsfw_{which}"] > 0.5 for row, which in zip(runs.table, runs.which, strict=True)]
    assert runs._repr_html_().count("checkbox") == sum(high)


# ---- objectives


def test_objectives_are_added_weighted_and_subtracted(gen, places, nsfw):
    both = places.log_prob("bar") + 0.5 * nsfw.log_odds("NSFW") - 0.1 * js.total_variation()
    result = js.maximize(both, gen, balance="image", **SMALL)
    row = result.row
    expected = row["activation_1_best"] + 0.5 * row["activation_2_best"]
    expected -= 0.1 * row["activation_3_best"]
    assert row["objective_best"] == pytest.approx(expected, rel=1e-4)
    assert row["target_3"] == "generator:image_tv:0" and row["weight_3"] == -0.1


def test_hidden_units_channels_directions_and_recorded_activations(gen, places):
    vector = np.random.default_rng(0).normal(size=12)
    recorded = np.asarray(places.apply(places.params, jnp.zeros((16, 16, 3)))["fc6"])
    runs = js.sweep(
        {
            "unit": places.unit("conv2_pre", 5, at=(4, 4)),
            "channel": places.channel("conv2_pre", 5),
            "direction": places.direction("fc6", vector),
            "match": places.match("fc6", recorded),
            "layer": places.layer("conv1"),
        },
        gen, seeds=2, **SMALL,
    )  # fmt: skip
    for name in ("unit", "channel", "direction", "match", "layer"):
        for row in runs[name].table:
            assert row["activation_1_best"] == pytest.approx(row["objective_best"], rel=1e-4), name
    assert all(row["activation_1_last"] <= 0 for row in runs["match"].table)
    image = jnp.asarray(runs["direction"][0].raw)
    seen = np.asarray(places.apply(places.params, image)["fc6"])
    best = runs["direction"].table[0]["objective_best"]
    assert float(vector @ seen) == pytest.approx(best, rel=1e-3)


def test_seeds_pushed_apart(gen, places):
    together = js.maximize(places.log_prob("abbey"), gen, seeds=4, **SMALL)
    objective = places.log_prob("abbey") + 30 * js.diversity(places, "conv2")
    apart = js.maximize(objective, gen, seeds=4, **SMALL)

    def likeness(runs):
        grams = []
        for image in runs.raw:
            blob = np.asarray(places.apply(places.params, jnp.asarray(image))["conv2"])
            flat = blob.reshape(-1, blob.shape[-1])
            grams.append((flat.T @ flat).ravel())
            grams[-1] /= np.linalg.norm(grams[-1])
        return (np.array(grams) @ np.array(grams).T).sum()

    assert likeness(apart) < likeness(together)


def test_a_minimal_change_of_a_photograph(gen, nsfw, photo):
    start = js.maximize(nsfw.log_odds("NSFW"), gen, init=photo, recipe=js.recipes.goh(steps=0))
    plain = js.maximize(nsfw.log_odds("NSFW"), gen, init=photo, **SMALL)
    objective = nsfw.log_odds("NSFW") - 1e4 * js.distance_to_start()
    result = js.maximize(objective, gen, init=np.asarray(Image.open(photo)), **SMALL)
    moved = [np.abs(r.sweep.codes - start.sweep.codes).mean() for r in (plain, result)]
    assert 0 < moved[1] < moved[0]
    assert result.sweep.start_codes[0] == pytest.approx(start.sweep.start_codes[0])


# ---- own models, functions, optimizers


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3))(x[None]))
        return nn.Dense(4)(x.mean(axis=(1, 2)))[0]


def own_classifier(**options) -> js.Classifier:
    net = Net()
    params = net.init(jax.random.key(0), jnp.zeros((20, 20, 3)))
    units = js.Preprocess(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), order="RGB", range=(0, 1))
    names = ("cat", "dog", "hen", "cow")
    return js.Classifier(net.apply, params, size=20, labels=names, preprocess=units, **options)


def test_own_functions_are_traced_in_the_callers_thread_and_not_kept(gen):
    names, kept = [], len(compiled._ready)

    def mean(params, x):
        names.append(threading.current_thread().name)
        return {"logits": x.mean((0, 1))}

    js.maximize(js.Classifier(mean, {}, size=20).logit(0), gen, **SMALL)
    assert set(names) == {threading.current_thread().name}
    assert len(compiled._ready) == kept


def test_own_classifier(gen):
    mine = own_classifier(name="mine")
    result = js.maximize(mine.logit("cat"), gen, **SMALL)
    assert result.row["top_mine"] in mine.labels
    pixels = jax.image.resize(result.sweep.generator.preprocess.to_rgb(result.raw), (20, 20, 3),
                              "bilinear", antialias=False)  # fmt: skip
    x = (np.asarray(pixels) / 255 - 0.5) / 0.2
    expected = mine.apply(mine.params, jnp.asarray(x))[0]
    assert result.row["objective_best"] == pytest.approx(float(expected), rel=1e-3)


def test_own_function_of_activations(gen, places):
    result = js.maximize(
        lambda acts: (acts[places]["conv1"] ** 2).mean(), gen, classifiers=[places], **SMALL
    )
    same = js.maximize(places.layer("conv1"), gen, **SMALL)
    np.testing.assert_allclose(result.raw, same.raw, rtol=1e-4, atol=1e-2)
    assert result.row["target_1"] == "function:<lambda>"
    assert result.row["activation_1_best"] == pytest.approx(result.row["objective_best"])

    def smooth(acts):
        return -jnp.abs(jnp.diff(acts.image, axis=0)).mean()

    runs = js.sweep({"a": places.logit(0), "b": smooth}, gen, seeds=2, **SMALL)
    assert np.isnan(runs["a"].arrays.last.watched["generator"]["function:smooth"]).all()
    assert runs["b"].table[0]["activation_1_last"] < 0


@pytest.mark.parametrize("optimizer", [
    optax.adamw(0.05), js.cma_es(population=4), "snes+4", js.lbfgs(), js.langevin(),
])  # fmt: skip
def test_own_optimizer(gen, places, optimizer):
    first = js.maximize(places.logit(3), gen, recipe=js.recipes.goh(steps=0), batch=4)
    result = js.maximize(places.logit(3), gen, optimizer=optimizer, **SMALL)
    assert result.row["objective_best"] > first.row["objective_best"]
    assert result.sweep.config["sweep"]["optimizer"]


def test_an_optimizer_is_any_object_that_asks_and_tells(gen, places):
    def init(setting: Setting):
        return setting.start

    def ask(setting: Setting, step, state):
        return state[None], state

    def tell(setting: Setting, step, state, codes, seen: Seen):
        return jnp.clip(codes[0] + 0.5, setting.box.lower, setting.box.upper)

    own = js.Optimizer("own", "value", 1.0, init, ask, tell)
    result = js.maximize(places.logit(3), gen, optimizer=own, **SMALL)
    expected = np.minimum(result.sweep.start_codes + 3 * 0.5, gen.code.upper)
    np.testing.assert_allclose(result.sweep.codes, expected, rtol=1e-6)
    assert result.sweep.config["sweep"]["optimizer"] == "own"


def test_own_generator(places):
    def apply(params, code):
        return jnp.tanh(params @ code).reshape(16, 16, 3)

    params = np.random.default_rng(0).normal(size=(16 * 16 * 3, 6)).astype(np.float32)
    units = js.Preprocess(range=(-1, 1))
    own = js.Generator(apply, params, code_size=6, box=(-2, 2), start="normal", preprocess=units)
    runs = js.sweep([places.logit(0), places.logit(1)], own, seeds=3, **SMALL)
    assert runs.images.shape == (6, 16, 16, 3) and np.abs(runs.codes).max() <= 2
    expected = np.rint((runs.raw + 1) / 2 * 255)
    assert np.abs(runs.images - expected).max() <= 1


# ---- folders


def test_a_folder_resumes_from_python_and_is_the_launchers(gen, places, nsfw, weights, tmp_path):
    objectives = {name: places.log_prob(name) for name in ("bar", "dam")}
    how = {"classifiers": [nsfw], "seeds": 3, **SMALL}

    class Enough(Exception):
        pass

    def stop(first, done, values, snapshot):
        raise Enough

    folder = tmp_path / "run"
    whole = js.sweep(objectives, gen, folder=folder, title="two scenes", **how)
    assert whole.folder == folder and not (folder / "unfinished").exists()
    js.report(whole, folder)
    left = {"report.html", "contact_sheet.png", "metrics.csv", "config.json"}
    assert left <= {path.name for path in folder.iterdir()}
    page = (folder / "report.html").read_text("utf-8")
    assert page.count("<img") >= 6 and "seed 2" in page
    again = js.sweep(objectives, gen, folder=folder, resume=True, **how)
    memory = js.sweep(objectives, gen, **how)
    jax.tree.map(np.testing.assert_array_equal, again.arrays, memory.arrays)
    assert again.table == memory.table
    with pytest.raises(ValueError, match="is not empty"):
        js.sweep(objectives, gen, folder=folder, **how)
    with pytest.raises(ValueError, match="sweep recipe steps 4, not 5"):
        other = how | {"recipe": js.recipes.goh(steps=5)}
        js.sweep(objectives, gen, folder=folder, resume=True, **other)

    flags = [f"--{n}={weights / n}.safetensors" for n in ("generator", "places", "nsfw")]
    flags += ["--scenes=bar,dam", "--seeds=3", "--recipe=goh", "--steps=4", "--batch=4"]
    flags += ["--target=log_prob"]
    done = run("scene", "--noprogress", *flags, f"--out={tmp_path / 'launched'}")
    assert done.returncode == 0, done.stderr
    name, launched = "results.safetensors", tmp_path / "launched"
    assert (folder / name).read_bytes() == (launched / name).read_bytes()
    for name in (f"images/run0000{i}_last.png" for i in range(6)):
        np.testing.assert_array_equal(read_image(folder / name), read_image(launched / name))

    read = js.read_results(folder)
    assert all(isinstance(a.base, np.memmap) for a in jax.tree.leaves(read.arrays.last.image))
    assert read[2:4].start_codes.base is not None  # a view still: nothing is loaded
    np.testing.assert_array_equal(read.images, whole.images)
    assert [r.objective for r in read.runs[::3]] == [str(o) for o in objectives.values()]
    assert read["dam"].table[1]["seed"] == 1 and read.table[0]["top_places"] in LABELS
    full = js.read_results(folder, gen, [places, nsfw])
    assert full.table == whole.table and full.runs[0].objective == objectives["bar"]


def test_a_killed_sweep_resumes_to_the_same_bits(gen, places, tmp_path, monkeypatch):
    how = {"seeds": 6, "save_seconds": 0.0, **SMALL}
    from jaxsynth.runs import saving

    class Killed(BaseException):
        pass

    real, saved = saving.save_progress, []

    def save_progress(folder, first, progress):
        real(folder, first, progress)
        saved.append(first)
        if len(saved) == 6:
            raise Killed

    monkeypatch.setattr(saving, "save_progress", save_progress)
    with pytest.raises(Killed):
        js.sweep(places.logit(0), gen, folder=tmp_path / "run", **how)
    assert saved[-1] == 4 and (tmp_path / "run" / "unfinished").is_dir()
    runs = js.sweep(places.logit(0), gen, folder=tmp_path / "run", resume=True, **how)
    memory = js.sweep(places.logit(0), gen, **how)
    jax.tree.map(np.testing.assert_array_equal, runs.arrays, memory.arrays)


def test_vectors_are_saved_beside_the_run(gen, places, tmp_path):
    vector = np.random.default_rng(0).normal(size=12)
    objective = places.direction("fc6", vector)
    js.sweep(objective, gen, seeds=1, folder=tmp_path / "run", **SMALL)
    [file] = (tmp_path / "run" / "inputs").iterdir()
    np.testing.assert_array_equal(np.load(file), vector)
    read = js.read_results(tmp_path / "run", gen, [places])
    np.testing.assert_array_equal(read.runs[0].objective.terms[0].value, vector)


def test_runs_continue_from_finished_ones(gen, places, tmp_path):
    first = js.sweep(places.logit(0), gen, seeds=[4, 7], folder=tmp_path / "run", **SMALL)
    more = js.sweep({"bar": places.logit("bar")}, gen, init=first, **SMALL)
    np.testing.assert_array_equal(more.start_codes, first.codes)
    assert [one.seed for one in more.runs] == [4, 7]
    assert [row["from"] for row in more.table] == [f"{tmp_path / 'run'}:{n}" for n in (0, 1)]
    assert [row["column"] for row in more.table] == ["run 0", "run 1"]
    one = js.maximize(places.logit(1), gen, init=first[1], **SMALL)
    assert one.run.seed == 7
    np.testing.assert_array_equal(one.sweep.start_codes, first.codes[1:])
    many = js.sweep([places.logit(0), places.logit(1)], gen, init=first.codes, **SMALL)
    np.testing.assert_array_equal(many.start_codes, np.tile(first.codes, (2, 1)))
    np.save(tmp_path / "codes.npy", first.codes)
    file = js.maximize(places.logit(0), gen, init=tmp_path / "codes.npy", **SMALL)
    np.testing.assert_array_equal(file.codes, many[:2].codes)


def test_pages_of_runs_in_memory_and_scores_of_files(gen, places, nsfw, photo, tmp_path):
    runs = js.sweep(places.logit(0), gen, seeds=2, classifiers=[nsfw], **SMALL)
    js.report(runs, tmp_path / "pages", title="two runs")
    assert "two runs" in (tmp_path / "pages" / "report.html").read_text("utf-8")
    runs[0].save(tmp_path / "one.png")
    [made, read] = js.score([tmp_path / "one.png", photo], [places, nsfw])
    assert not made.error and not read.error and set(made.values) == {"places", "nsfw"}
    [one, _] = js.score([tmp_path / "one.png", photo], nsfw)
    assert one.values["nsfw"] == made.values["nsfw"]
    [one] = js.score(tmp_path / "one.png", nsfw)  # another batch size rounds differently
    assert dict(one.values["nsfw"]) == pytest.approx(dict(made.values["nsfw"]))
    assert len(js.report(runs[1], tmp_path / "page of one").rows) == 1


def test_what_finished_runs_refuse_names_the_way_out(gen, places, tmp_path):
    mine, folder, file = own_classifier(name="mine"), tmp_path / "run", tmp_path / "file"
    runs = js.sweep(mine.logit(0), gen, seeds=1, folder=folder, **SMALL)
    file.touch()

    def again(where):
        return js.maximize(places.logit(0), gen, folder=where, **SMALL)

    for said, ask in {
        "make the folder .*nodir' first": lambda: runs[0].save(tmp_path / "nodir" / "x.png"),
        "run' cannot be written: it is a folder": lambda: runs.to_csv(folder),
        "BytesIO is no path": lambda: runs[0].save(io.BytesIO()),
        r"runs\[\('bar', 1\)\]: expected a number": lambda: runs["bar", 1],
        "run 1 of 1: expected 0 to 0": lambda: runs[1],
        "read without their models": lambda: js.report(js.read_results(folder), tmp_path / "page"),
        r"cannot all be loaded .*js\.register\(": lambda: js.report(folder, tmp_path / "page"),
        "3 is no Classifier: expected a list": lambda: js.read_results(folder, gen, 3),
        "'mine' is no Generator": lambda: js.read_results(folder, mine),
        r"is a folder: .*init=js\.read_results\(": lambda: js.sweep(
            mine.logit(0), gen, init=folder
        ),
        "is not empty: .*folder=.*overwrite=True": lambda: again(folder),
        "a file has its name": lambda: again(file),
    }.items():
        with pytest.raises((ValueError, IndexError), match=said) as caught:
            ask()
        assert "\n" not in str(caught.value)
    assert js.read_results(folder, gen, mine).classifiers == (mine,)
    (folder / "results.safetensors").unlink()
    (folder / "unfinished").mkdir()
    with pytest.raises(ValueError, match=r"is not finished: .*resume=True"):
        js.read_results(folder, gen, [mine])
    with pytest.raises(ValueError, match=r"was stopped: .*resume=True.*overwrite=True"):
        again(folder)


def test_what_a_program_made_is_not_in_the_image(gen, tmp_path, monkeypatch):
    mine, image, again = own_classifier(name="mine"), tmp_path / "x.png", tmp_path / "y.png"
    js.maximize(mine.logit(0), gen, **SMALL).save(image)
    with pytest.raises(ValueError, match=r"'mine', a model of a Python program.*js\.register\("):
        repeat(image, again)
    monkeypatch.setitem(registry._made, "mine", lambda: mine)
    assert repeat(image, again).equal
    js.maximize(mine.direction("logits", np.ones(4)), gen, **SMALL).save(image)
    with pytest.raises(ValueError, match=r"no inputs/array-\w+.npy: the run maximised an array of"):
        repeat(image, again)


def test_runs_that_do_not_stay_finite_are_told_once_and_saved(gen, places, tmp_path, caplog):
    how = {"normalize": False, "lr_start": 1.0, "schedule": "constant", "box": "none"}
    recipe = js.Recipe(steps=6, start="normal", **how)
    calm, wild = (places.logit("bar") + weight * js.code_l2() for weight in (-0.01, 6e4))
    goals, plain = {"calm": calm, "wild": wild}, {**SMALL, "recipe": recipe, "balance": "sum"}
    with caplog.at_level("WARNING", "jaxsynth"):
        runs = js.sweep(goals, gen, seeds=2, folder=tmp_path / "run", **plain)
    [said] = caplog.messages
    first, last = sorted(runs.arrays.ended[2:])
    at = f"step {first}" if first == last else f"steps {first} to {last}"
    assert first > 0 and said.startswith(f"2 of 4 runs did not stay finite: frozen at {at}, ")
    saved = js.read_results(tmp_path / "run", gen, [places])
    assert [row["status"].split(",")[0] for row in saved.table][:3] == [
        *("ok", "ok"),
        f"non-finite at step {runs.arrays.ended[2]}",
    ]
    caplog.clear()
    with caplog.at_level("WARNING", "jaxsynth"):
        js.maximize(lambda acts: jnp.log(-jnp.abs(acts.code[0])), gen, **SMALL)
        js.maximize(calm, gen, **plain)
    [said] = caplog.messages
    assert said.startswith("no run stayed finite: frozen at step 0, ")


def test_runs_that_must_be_equal_are_computed_once(gen, nsfw, tmp_path):
    """Under normalised steps only the ratio of weights counts."""
    sfw, other = nsfw.logit("SFW"), nsfw.logit("NSFW")
    goals = {f"{a} {b}": a * sfw + b * other for a in (0.5, 1, 0.7) for b in (0.5, 1, 0.7)}
    saved = js.sweep(goals, gen, seeds=2, folder=tmp_path / "run", **SMALL)
    assert saved.equals == {8: 0, 9: 1, 16: 0, 17: 1}
    assert [row.get("equals") for row in saved.table] == [saved.equals.get(i) for i in range(18)]
    assert len(list((tmp_path / "run" / "images").iterdir())) == 36
    held = js.sweep(goals, gen, seeds=2, **SMALL)
    for one, two in zip(jax.tree.leaves(held.arrays), jax.tree.leaves(saved.arrays), strict=True):
        np.testing.assert_array_equal(one, two)
    for name, weights in {"0.7 0.7": (0.7, 0.7), "0.7 1": (0.7, 1.0)}.items():
        alone, row = js.maximize(goals[name], gen, seed=1, **SMALL), held[name][1].row
        np.testing.assert_array_equal(alone.code, held[name][1].code)
        value = sum(w * row[f"activation_{n}_best"] for n, w in enumerate(weights, 1))
        assert row["objective_best"] == pytest.approx(value, rel=1e-5)
    read = js.read_results(tmp_path / "run", gen, [nsfw])
    assert read.equals == saved.equals and read.table[8]["equals"] == 0
    raw = js.sweep([sfw, 2 * sfw], gen, seeds=1, optimizer="lbfgs", **SMALL)
    assert not raw.equals and raw.table[0]["shown"] in ("best", "last")


def test_seeds_that_start_alike_are_computed_once(gen, places, photo):
    runs = js.sweep(places.logit(0), gen, init=photo, seeds=3, **SMALL)
    assert runs.equals == {1: 0, 2: 0}
    moved = js.sweep(places.logit(0), gen, init=photo, seeds=2, **SMALL | {
        "recipe": js.recipes.goh(steps=2, jitter=1)
    })  # fmt: skip
    assert not moved.equals and (moved.codes[0] != moved.codes[1]).any()


# ---- what cannot work


def test_a_missing_backend_is_not_blamed_on_a_file(gen, places, weights, monkeypatch):
    def absent():
        raise AssertionError

    monkeypatch.setattr(jax, "local_devices", absent)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    for ask in (
        lambda: js.load(weights / "places.safetensors"),
        lambda: js.maximize(places.logit(0), gen, **SMALL),
    ):
        with pytest.raises(ValueError, match=r"^JAX_PLATFORMS=cuda: no such backend here; unset"):
            ask()


def test_wrong_words_are_one_line(gen, places, tmp_path):
    goal = places.logit(0)
    for said, ask in {
        "maximize: 'balence' is no setting .did you mean balance": lambda: js.maximize(
            goal, gen, balence="image"
        ),
        r"'steps' is no setting: .* recipe=js\.recipes\.pocket.steps=3": lambda: js.maximize(
            goal, gen, steps=3
        ),
        "seed=5 and seeds=2: give one": lambda: js.maximize(goal, gen, seed=5, seeds=2),
        "batch is 0, expected a whole number from 1": lambda: js.sweep(goal, gen, batch=0),
        "report: 3 is no finished run": lambda: js.report(3, tmp_path),
        "sweep: seeds is 0": lambda: js.sweep(goal, gen, seeds=0),
        "maximize: seed is -1": lambda: js.maximize(goal, gen, seed=-1),
        "sweep: seeds is .1.5.": lambda: js.sweep(goal, gen, seeds=[1.5]),
        "did you mean goh": lambda: js.maximize(goal, gen, recipe="gooh"),
        "recipe is a partial: call it": lambda: js.maximize(goal, gen, recipe=js.recipes.goh),
        "recipe is a Settings": lambda: js.maximize(goal, gen, recipe=Settings()),
        "'adamm' does not exist .did you mean adam": lambda: js.maximize(
            goal, gen, optimizer="adamm"
        ),
        "'adamm' is no optax optimizer .* .did you mean adam": lambda: js.maximize(
            goal, gen, recipe=js.recipes.goh(optimizer="adamm")
        ),
        "no argument 'momentun' .did you mean momentum.*takes momentum, nesterov": lambda: (
            js.maximize(goal, gen, recipe=js.recipes.goh(optimizer_args={"momentun": 0.9}))
        ),
        "function 'lbfgs': call it": lambda: js.maximize(goal, gen, optimizer=js.lbfgs),
        "batch is '8', expected a whole number": lambda: js.maximize(goal, gen, batch="8"),
        "devices is 2, expected a list": lambda: js.maximize(goal, gen, devices=2),
        "record is 5, expected a list": lambda: js.maximize(goal, gen, record=5),
        "recorded steps .0.5. ": lambda: js.maximize(goal, gen, record=[0.5]),
        "balance is 'imag'.*did you mean image": lambda: js.maximize(goal, gen, balance="imag"),
        "Classifier 'places' is no objective": lambda: js.maximize(places, gen),
        "'bar' is no objective.*jaxsynth.parse": lambda: js.sweep({"a": "bar"}, gen),
        "'b' is no weight": lambda: goal * "b",
        "5 is no objective": lambda: goal + 5,
        "weight nan is not a finite number": lambda: goal / 0,
        "'places' is no model": lambda: js.diversity("places", "conv2"),
        "run: seed is 'a'": lambda: Run("a", goal),
        "runs: 'text' is none: expected Run": lambda: plan([Run(0, "text")], gen),
        "settings: a Recipe is no Settings: give Settings": lambda: plan(
            [Run(0, goal)], gen, (), js.recipes.goh()
        ),
        "dtype float33 is not supported": lambda: js.load("pocket_places", "float33"),
        "expected a Recipe": lambda: js.maximize(goal, gen, recipe=3),
        "init holds float64 .5,.": lambda: js.maximize(goal, gen, init=np.zeros(5)),
        "init has 2 codes for 3 seeds": lambda: js.sweep(
            goal, gen, seeds=3, init=np.zeros((2, 12))
        ),
        "is no objective": lambda: js.maximize("bar", gen),
        "stands for the generator": lambda: js.maximize(goal, places),
        "resume needs a folder": lambda: js.sweep(goal, gen, resume=True),
        "overwrite deletes it": lambda: js.sweep(
            goal, gen, folder=tmp_path, resume=True, overwrite=True
        ),
        "unit 'bra' is not in 0..4 and not a label .did you mean bar": lambda: js.maximize(
            places.log_prob("bra"), gen
        ),
        "two classifiers are called 'places'": lambda: js.maximize(
            goal, gen, classifiers=[places.named("places")]
        ),
        "holds no readable results|cannot be read": lambda: js.read_results(tmp_path),
    }.items():
        with pytest.raises(ValueError, match=said) as caught:
            ask()
        assert "\n" not in str(caught.value)
