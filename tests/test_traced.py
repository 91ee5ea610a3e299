"""Traced programs on disk: found again without tracing, never for anything else, never damaged."""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsynth.models import compiled
from jaxsynth.models.compiled import network_jit, saved_jit
from jaxsynth.transforms import Transforms

_TRACES = []


def _scaled(how: Transforms, x: dict[str, jax.Array]) -> dict[str, jax.Array]:
    _TRACES.append(how)
    return {"y": jnp.sin(x["a"]) * how.zoom + x["b"]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "_folder", lambda: tmp_path)
    monkeypatch.setattr(compiled, "_ready", {})
    _TRACES.clear()
    return tmp_path


def _call(zoom: float = 2.0, size: int = 3) -> np.ndarray:
    """In what stands for a new process: nothing is held in memory."""
    compiled._ready.clear()
    x = {"a": jnp.arange(size, dtype=jnp.float32), "b": jnp.ones(size)}
    program = saved_jit(_scaled, 1)
    return np.asarray(program(Transforms(zoom=zoom), x)["y"])


def test_a_later_process_does_not_trace_and_computes_the_same_bits(folder):
    first, second = _call(), _call()
    assert len(_TRACES) == 1 and len(list(folder.glob("*.bin"))) == 1
    assert first.tobytes() == second.tobytes()
    plain = network_jit(_scaled, static_argnums=0)
    x = {"a": jnp.arange(3, dtype=jnp.float32), "b": jnp.ones(3)}
    assert np.asarray(plain(Transforms(zoom=2.0), x)["y"]).tobytes() == first.tobytes()


def test_other_statics_shapes_and_sources_are_other_programs(folder, monkeypatch):
    made = [_call(), _call(zoom=3.0), _call(size=4)]
    assert len(_TRACES) == 3 and made[1][2] != made[0][2] and made[2].shape == (4,)
    monkeypatch.setattr(compiled, "_surroundings", lambda: "other source")
    _call()
    assert len(_TRACES) == 4


@pytest.mark.parametrize("damage", ["empty", "half", "a bit"])
def test_a_damaged_program_is_replaced(folder, damage, caplog):
    expected = _call()
    [path] = folder.glob("*.bin")
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = bytes([whole[middle] ^ 1])
    broken = {"empty": b"", "half": whole[:middle]}
    broken["a bit"] = whole[:middle] + flipped + whole[middle + 1 :]
    path.write_bytes(broken[damage])
    with caplog.at_level(logging.WARNING, "jaxsynth"):
        assert _call().tobytes() == expected.tobytes()
    assert "damaged entry" in caplog.text and len(_TRACES) == 2
    _call()
    assert len(_TRACES) == 2  # it is whole again


def test_what_cannot_be_named_is_traced_every_time(folder):
    def own(how, x):
        return x["a"] * how(1.0)

    program = saved_jit(own, 1)
    assert program(abs, {"a": jnp.ones(2)}).tolist() == [1, 1]
    assert not list(folder.iterdir())


def test_gradients_double_precision_and_no_cache_do_without(folder, monkeypatch):
    program = saved_jit(_scaled, 1)
    x = {"a": jnp.zeros(2), "b": jnp.ones(2)}
    slope = jax.grad(lambda a: program(Transforms(), x | {"a": a})["y"].sum())(x["a"])
    assert slope.tolist() == [1, 1]
    with jax.enable_x64(True):
        wide = {name: jnp.asarray(np.float64(1)) for name in x}
        assert program(Transforms(), wide)["y"].dtype == np.float64
    monkeypatch.setattr(compiled, "_folder", lambda: None)
    _call()
    assert not list(folder.iterdir())


def test_text_tells_static_arguments_apart():
    @dataclasses.dataclass(frozen=True)
    class Settings:
        steps: int
        name: str = "a"

    different = [1, 1.0, True, "1", None, (1,), (1, 1), ((1,), 1), Transforms(1), Settings(1)]
    different += [Settings(2), Settings(1, "b"), Transforms(2), Transforms(1, 2.0)]
    texts = [compiled.text_of(one) for one in different]
    assert None not in texts and len(set(texts)) == len(different)
    assert compiled.text_of(Settings(1)) == compiled.text_of(Settings(1))
    assert compiled.text_of((1, functools.partial(abs))) is None


def test_shapes_are_found_once(folder):
    made = []

    def shapes():
        made.append(1)
        return [{"conv": [3, 3]}]

    assert compiled.saved_json("net", shapes) == compiled.saved_json("net", shapes)
    assert len(made) == 1
    [path] = folder.glob("*.json")
    path.write_text("{")
    assert compiled.saved_json("net", shapes) == [{"conv": [3, 3]}] and len(made) == 2
