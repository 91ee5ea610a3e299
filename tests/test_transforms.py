"""Random transformations of what classifiers see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsynth.transforms import Transforms

IMAGE = np.random.default_rng(0).normal(size=(12, 12, 3)).astype(np.float32)


def _seen(transforms, image=IMAGE, seed=0, step=0):
    return np.asarray(transforms.view(jnp.uint32(seed), jnp.int32(step))(jnp.asarray(image)))


def test_nothing_is_changed_by_default():
    assert not Transforms().draws
    np.testing.assert_array_equal(_seen(Transforms()), IMAGE)


def test_zoom_enlarges_a_crop():
    rows = np.broadcast_to(np.arange(40.0, dtype=np.float32)[:, None, None], (40, 40, 3))
    columns = rows.transpose(1, 0, 2)
    spans, starts = [], []
    for seed in range(30):
        seen = _seen(Transforms(zoom=3.0), rows, seed)
        step = np.diff(seen[:, 0, 0])
        np.testing.assert_allclose(step, step[0], atol=1e-3)  # one scale, no turn
        np.testing.assert_allclose(seen[:, :1], seen[:, 1:2], atol=1e-3)
        across = _seen(Transforms(zoom=3.0), columns, seed)
        np.testing.assert_allclose(np.diff(across[0, :, 0]), step, atol=1e-3)  # no distortion
        assert seen.min() >= -1e-3 and seen.max() <= 39 + 1e-3
        spans.append(step[0])
        starts.append(seen[0, 0, 0])
    assert 1 / 3 - 1e-3 <= min(spans) < 0.4 and 0.8 < max(spans) <= 1
    assert np.ptp(starts) > 10


def test_a_turn_keeps_the_centre_and_the_size():
    y, x = np.mgrid[:21, :21].astype(np.float32) - 10
    image = np.stack([y, x, np.hypot(y, x)], axis=-1)
    angles = []
    for seed in range(20):
        seen = _seen(Transforms(rotate=30.0), image, seed)
        np.testing.assert_allclose(seen[10, 10, :2], 0, atol=1e-4)
        np.testing.assert_allclose(seen[10, 14:17, 2], [4, 5, 6], atol=0.15)
        angles.append(np.degrees(np.arctan2(seen[10, 15, 0], seen[10, 15, 1])))
    assert np.abs(angles).max() <= 30.1 and min(angles) < -10 and max(angles) > 10


def test_seed_and_step_decide_and_gradients_flow():
    transforms = Transforms(jitter=2, zoom=1.5, rotate=10.0)
    first = _seen(transforms)
    np.testing.assert_array_equal(_seen(transforms), first)
    assert not np.array_equal(_seen(transforms, step=1), first)
    assert not np.array_equal(_seen(transforms, seed=1), first)
    move = transforms.view(jnp.uint32(0), jnp.int32(0))
    gradient = jax.grad(lambda x: (move(x) ** 2).sum())(jnp.asarray(IMAGE))
    assert np.isfinite(gradient).all() and np.abs(gradient).sum() > 1


@pytest.mark.parametrize("change, said", [({"zoom": 0.5}, "zoom"), ({"rotate": 200}, "rotate")])
def test_what_cannot_be_is_refused(change, said):
    from jaxsynth.recipes import check_recipe, goh

    with pytest.raises(ValueError, match=said):
        check_recipe(goh(**change))
