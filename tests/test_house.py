"""What people type first, paragraph by paragraph, on tiny networks with the shipped ones' names.

Values are looked at in test_library.py and test_objectives.py; here every form is accepted.
"""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from test_docs import shipped  # noqa: F401

import jaxsynth as js
from jaxsynth.__main__ import main

PARAGRAPHS = {
    "one neuron": """
result = js.maximize(places.logit("volcano"), gen, seed=0)
assert result.image.dtype == np.uint8 and result.raw.shape == result.image.shape == (16, 16, 3)
result.save("volcano.png")
with Image.open("volcano.png") as file:
    assert "jaxsynth" in file.text and "<img" in result._repr_html_()
""",
    "a sweep": """
runs = js.sweep({n: places.log_prob(n) for n in ("mountain", "abbey")}, gen, seeds=range(8),
                recipe=js.recipes.goh(steps=3), folder="out/scenes", resume=True)
assert runs["mountain"].images.shape == (8, 16, 16, 3) and len(runs.table) == 16
assert Path("out/scenes/metrics.csv").read_text().startswith(",".join(runs.table[0]))
js.report(runs, "out/scenes")
assert "mountain" in Path("out/scenes/index.html").read_text()
""",
    "the algebra": """
both = places.log_prob("mountain") + 0.5 * nsfw.log_odds("NSFW") - 0.1 * js.total_variation()
assert [t.weight for t in both.terms] == [1, 0.5, -0.1]
assert js.parse(str(both), {"places": places, "open_nsfw": nsfw}) == both
js.maximize(both, gen, balance="image")
""",
    "hidden layers": """
js.maximize(places.unit("conv_stem", 3, at=(4, 4)), gen)
js.maximize(places.channel("conv_stem", 3), gen)
js.maximize(places.direction("pool", vector), gen)
np.save("vector.npy", vector)
js.maximize(places.direction("pool", "vector.npy"), gen)
js.maximize(places.match("pool", vector), gen)
js.maximize(places.layer("conv_head"), gen)
""",
    "seeds, photographs": """
js.maximize(places.log_prob("abbey") + 0.3 * js.diversity(places, "conv_stem"), gen, seeds=8)
photo = np.zeros((40, 48, 3), np.uint8)
js.maximize(nsfw.log_odds("NSFW") - 2.0 * js.distance_to_start(), gen, init=photo)
js.maximize(nsfw.log_odds("NSFW"), gen, init="photo.jpg")
""",
    "an own classifier": """
units = js.Preprocess(mean=(0.5,) * 3, std=(0.2,) * 3, order="RGB", range=(0, 1))
mine = js.Classifier(apply, params, size=20, labels=("cat", "dog", "hen"), preprocess=units)
result = js.maximize(mine.logit("cat"), gen)
js.maximize(lambda acts: (acts[mine]["block4"] ** 2).mean(), gen, classifiers=[mine])
js.maximize(mine.logit(2), gen, optimizer=optax.adamw(0.05))
js.maximize(mine.logit(2), gen, optimizer=js.cma_es(population=16))
""",
    "logits alone": """
bare = js.Classifier(lambda p, x: apply(p, x)["logits"], params, size=20)
js.maximize(bare.logit(2), gen)
""",
    "an own generator": """
def draw(params, code):
    return jnp.tanh(params @ code).reshape(16, 16, 3)

basis = np.ones((768, 128), np.float32)
own = js.Generator(draw, basis, code_size=128, box=(-2, 2), start="normal")
assert js.maximize(places.logit("abbey"), own).code.shape == (128,)
""",
}


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        block = nn.relu(nn.Conv(8, (3, 3), strides=2)(x))
        return {"block4": block, "logits": nn.Dense(3)(block.mean((0, 1)))}


@pytest.mark.parametrize("text", PARAGRAPHS.values(), ids=list(PARAGRAPHS))
def test_it_is_typed_like_this(text, shipped):  # noqa: F811
    params = Net().init(jax.random.key(0), jnp.zeros((20, 20, 3)))
    names = {"js": js, "np": np, "jnp": jnp, "optax": optax, "Image": Image, "Path": Path}
    names |= {"apply": Net().apply, "params": params, "vector": np.arange(16.0)}
    models = ("gen", "pocket_generator"), ("places", "pocket_places"), ("nsfw", "open_nsfw")
    names |= {name: js.load(model) for name, model in models}
    names["places"] = names["places"].named("places")
    exec(compile(text, "house.py", "exec"), names)


@pytest.mark.parametrize(("words", "said"), [
    ([], "  scene "),
    (["models"], "pocket_places"),
    (["blobs", "places"], "conv_stem"),
    (["labels", "nsfw"], "NSFW"),
])  # fmt: skip
def test_the_command_answers(words, said, shipped, capsys):  # noqa: F811
    assert main(words) == 0 and said in capsys.readouterr().out
