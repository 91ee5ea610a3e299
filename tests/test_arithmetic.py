"""Results do not depend on the settings that a process or its environment gives JAX."""

import contextlib

import jax
import numpy as np
import pytest
from tiny import save_tiny_networks

import jaxsynth as js
from jaxsynth import arithmetic as settings
from jaxsynth.arithmetic import arithmetic, is_double, root_key, unpinned

HOSTS = (
    lambda: jax.default_prng_impl("rbg"),
    lambda: jax.threefry_partitionable(False),
    lambda: jax.enable_x64(True),
    lambda: jax.default_matmul_precision("bfloat16"),
    lambda: jax.numpy_dtype_promotion("strict"),
    lambda: jax.numpy_rank_promotion("raise"),
    lambda: jax.debug_nans(True),
    lambda: jax.transfer_guard("disallow"),
)


@contextlib.contextmanager
def host(*, seed_offset: int = 0):
    """A host program with settings of its own."""
    before = jax.config.jax_random_seed_offset
    with contextlib.ExitStack() as held:
        for setting in HOSTS:
            held.enter_context(setting())
        jax.config.update("jax_random_seed_offset", seed_offset)
        try:
            yield
        finally:
            jax.config.update("jax_random_seed_offset", before)


def found(weights, **options):
    """Runs whose start, jitter and noise are all drawn."""
    models = (js.load(weights / f"{name}.safetensors") for name in ("generator", "places", "nsfw"))
    gen, places, nsfw = models
    recipe = js.recipes.goh(steps=3, jitter=2)
    goal = places.log_prob("bar") + 0.5 * nsfw.logit(1)
    how = {"recipe": recipe, "optimizer": js.langevin(), "batch": 3, "progress": False}
    return js.sweep(goal, gen, seeds=2, **how | options)


def test_a_host_program_does_not_decide_a_run(tmp_path):
    save_tiny_networks(tmp_path)
    plain = found(tmp_path)
    with host(seed_offset=7):
        hosted = found(tmp_path)
        assert jax.config.jax_enable_x64 and jax.config.jax_default_prng_impl == "rbg"
    np.testing.assert_array_equal(hosted.start_codes, plain.start_codes)
    for one, other in zip(
        jax.tree.leaves(hosted.arrays), jax.tree.leaves(plain.arrays), strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_double_precision_needs_no_setting_of_the_process(tmp_path):
    save_tiny_networks(tmp_path)
    gen = js.load(tmp_path / "generator.safetensors", "float64")
    places = js.load(tmp_path / "places.safetensors", "float64")
    how = {"recipe": js.recipes.goh(steps=2), "batch": 1, "precision": "float64"}
    result = js.maximize(places.logit(1), gen, **how)
    assert result.raw.dtype == result.objective.dtype == np.float64
    assert not jax.config.jax_enable_x64


def test_keys_and_settings():
    plain = jax.random.key_data(jax.random.key(5))
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(jax.random.key_data(root_key(5)), plain)
    assert not is_double({"a": np.zeros(2, np.float32), "b": root_key(0), "c": "float64"})
    assert is_double([np.float32(0), (np.float64(0),)])
    with arithmetic(True):
        assert jax.config.jax_enable_x64
    assert not jax.config.jax_enable_x64


def test_what_cannot_be_set_is_recorded(monkeypatch):
    before = unpinned()
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2 --xla_dump_to=x")
    assert unpinned() == before
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert unpinned()["xla_flags"] == ["--xla_cpu_enable_fast_math=true"]


@pytest.mark.parametrize("setting", ["jax_softmax_custom_jvp", "jax_use_direct_linearize"])
def test_a_resume_with_other_unpinned_settings_is_refused(tmp_path, setting):
    save_tiny_networks(tmp_path)
    how = {"folder": tmp_path / "run", "resume": True, "images": "none"}
    found(tmp_path, **how)
    before = getattr(jax.config, setting)
    jax.config.update(setting, not before)
    try:
        with pytest.raises(ValueError, match=f"arithmetic {setting} "):
            found(tmp_path, **how)
    finally:
        jax.config.update(setting, before)


@pytest.mark.parametrize(
    ("cpuinfo", "has"),
    [
        ("flags : fpu avx2 avx512f\n", False),
        ("flags : fpu avx512_bf16 avx512f\n", True),
        ("flags : amx_bf16\n", True),
        ("Features : fp asimd bf16\n", True),
        (None, True),  # no Linux: nothing is known
    ],
)
def test_bfloat16_is_for_processors_that_have_it(cpuinfo, has, tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        file.write_text(cpuinfo)
    monkeypatch.setattr(settings, "_CPUINFO", file)
    settings.has_bfloat16.cache_clear()
    try:
        assert settings.has_bfloat16() is has
        used, why = settings.usable_precision("bfloat16")
        assert used == ("bfloat16" if has else "float32") and bool(why) is not has
        assert settings.usable_precision("float64") == ("float64", "")
    finally:
        settings.has_bfloat16.cache_clear()
