# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour of jaxsynth
#
# From a first picture to your own classifier, in fifteen steps. It takes some minutes on two CPU
# cores, the first time most of them to compile. Fewer `STEPS` are quicker and rougher. All pixels
# are generated.

# %% [markdown]
# ## 1. Load three networks
#
# A generator turns codes into images. Two classifiers look at them: one names scenes, one judges
# whether an image is safe for work. `how` is what most cells share, so that they share a program,
# too: it computes two runs at once.

# %%
import numpy as np

import jaxsynth as js

STEPS, SEEDS = 30, 4
gen = js.load("pocket_generator")
places = js.load("pocket_places").named("places")
nsfw = js.load("open_nsfw").named("nsfw")
recipe = js.recipes.pocket(steps=STEPS)
how = {"recipe": recipe, "classifiers": [places, nsfw], "batch": 2}
print(gen, places, nsfw, sep="\n")

# %% [markdown]
# ## 2. A first picture
#
# `maximize` searches for a code whose image excites a neuron: here the class *volcano*.

# %%
result = js.maximize(places.logit("volcano"), gen, seed=0, **how)
result

# %% [markdown]
# ## 3. What the search did
#
# The objective at every step, and what the finished run says of itself.

# %%
print(result.objective.round(2))
print(result.row["p_1_best"], result.status)

# %% [markdown]
# ## 4. Several seeds
#
# A seed decides where the search starts. A sweep computes all of them in one compiled program.

# %%
runs = js.sweep(places.logit("abbey"), gen, seeds=SEEDS, **how)
runs

# %% [markdown]
# ## 5. Several objectives
#
# Names become rows, seeds columns. `table` has a row for each run.

# %%
goals = {name: places.logit(name) for name in ("mountain", "coast")}
runs = js.sweep(goals, gen, seeds=2, **how)
for row in runs.table:
    print(row["target_1"], row["seed"], round(row["p_1_best"], 3), round(row["nsfw_best"], 4))

# %% [markdown]
# ## 6. Objectives have an algebra
#
# Add, subtract and weigh them. Here: an iceberg that is as safe as possible.

# %%
both = places.logit("iceberg") + 0.5 * nsfw.logit("SFW") - 0.5 * nsfw.logit("NSFW")
print(both)
js.maximize(both, gen, **how)

# %% [markdown]
# ## 7. A single unit of a layer
#
# Classes are the last layer only. `shapes` lists the others.

# %%
print(places.shapes["conv_head"])
js.maximize(places.channel("conv_head", 3), gen, **how)

# %% [markdown]
# ## 8. Seeds pushed apart
#
# `diversity` rewards images that differ from those of the other seeds.

# %%
diverse = places.logit("coast") + 3 * js.diversity(places, "block10")
js.sweep(diverse, gen, seeds=SEEDS, **how)

# %% [markdown]
# ## 9. An objective of your own
#
# Any JAX function of the activations, the image or the code. This one asks no classifier.


# %%
def blue_sky(acts):
    """Make the upper half blue, in the generator's units (blue first)."""
    upper = acts.image[: acts.image.shape[0] // 2]
    return (upper[..., 0] - upper[..., 2]).mean()


js.maximize(blue_sky, gen, recipe=recipe)

# %% [markdown]
# ## 10. Start from an image
#
# The generator's encoder finds the code of a photograph. Here an image from above stands in for
# one; give a path or an array of pixels.

# %%
photo = result.image
gentle = js.recipes.pocket_image(steps=STEPS, prior=0.0)
js.maximize(places.logit("iceberg"), gen, init=photo, **how | {"recipe": gentle})

# %% [markdown]
# ## 11. Another optimizer
#
# A recipe, a transformation of optax, or a search without gradients.

# %%
import optax

js.maximize(places.logit("desert-sand"), gen, optimizer=optax.adam(0.1), **how)

# %% [markdown]
# ## 12. Without a prior
#
# The pixels themselves, as lucid does: what the classifier alone asks for.

# %%
from jaxsynth.models.pixels import fourier

js.maximize(places.logit("volcano"), fourier(64), recipe=js.recipes.fourier(steps=STEPS), batch=1)

# %% [markdown]
# ## 13. Pages
#
# A sweep with a folder is saved as it is computed and can be resumed. `report` writes the explorer:
# open `out/tour/index.html`.

# %%
goals = {name: places.logit(name) for name in ("mountain", "iceberg")}
record = (STEPS // 3, 2 * STEPS // 3)
runs = js.sweep(goals, gen, seeds=2, folder="out/tour", resume=True, record=record, **how)
js.report(runs, "out/tour", title="The tour").summary

# %% [markdown]
# ## 14. Score images
#
# What the classifiers see in any image file. A PNG of a run also tells how it was made:
# `jaxsynth show out/tour/images/run00000_best.png`.

# %%
from pathlib import Path

for scored in js.score(sorted(Path("out/tour/images").glob("*_best.png")), [places, nsfw], top=2):
    print(scored.file.name, scored.values["places"])

# %% [markdown]
# ## 15. Your own classifier
#
# A pure function of parameters and one image. This one has no training: it measures how warm the
# colours are.


# %%
def apply(params, image):
    red, _, blue = image.mean((0, 1))
    return params * np.array([1.0, -1.0]) * (red - blue)


warmth = js.Classifier(apply, np.float32(8), size=32, labels=("warm", "cold"), name="warmth")
pair = {label: warmth.log_odds(label) for label in warmth.labels}
js.sweep(pair, gen, seeds=2, recipe=recipe, batch=2)
