"""Where a help is missing, work continues: no home, no cache, a damaged cache, closed streams."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from launching import ROOT
from launching import environment as surroundings

from jaxsynth import environment
from jaxsynth.environment import cache_dir, keep_compiled, writable_cache

_FOUR = "--xla_force_host_platform_device_count=4"


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """Without JAXSYNTH_CACHE, and temporary folders of the test's own."""
    monkeypatch.delenv("JAXSYNTH_CACHE")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    for function in (environment._made, environment._temporary_cache):
        function.cache_clear()
    yield monkeypatch
    for function in (environment._made, environment._temporary_cache):
        function.cache_clear()


def test_without_a_home_the_cache_is_temporary(no_cache, tmp_path):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    no_cache.setattr(Path, "home", no_home)
    assert cache_dir() == writable_cache() == tmp_path / "tmp" / f"jaxsynth-{os.getuid()}"
    assert cache_dir().stat().st_mode & 0o777 == 0o700


def test_a_cache_that_cannot_be_written_is_one_line(no_cache, tmp_path, caplog):
    (tmp_path / "file").touch()
    no_cache.setenv("PLACE", str(tmp_path / "file"))
    no_cache.setenv("JAXSYNTH_CACHE", "$PLACE/cache")
    assert [writable_cache(), writable_cache()] == [
        tmp_path / "tmp" / f"jaxsynth-{os.getuid()}"
    ] * 2
    [record] = caplog.records
    assert "Not a directory" in record.getMessage() and "JAXSYNTH_CACHE" in record.getMessage()


def test_a_damaged_compiled_program_is_replaced(tmp_path, caplog):
    before = jax.config.jax_compilation_cache_dir
    compilation_cache = environment.compilation_cache
    compilation_cache.reset_cache()
    keep_compiled(tmp_path)
    try:

        def doubled():
            def double(x):
                return x * 2.125

            return jax.jit(double)(2.0)  # a new function is compiled or read anew

        assert doubled() == 4.25
        [entry] = (tmp_path / "compiled").glob("jit_double*-cache")
        whole = entry.read_bytes()
        entry.write_bytes(whole[: len(whole) // 2])
        assert doubled() == 4.25
        assert len(entry.read_bytes()) > len(whole) // 2
        assert "damaged entry of the compile cache is replaced: jit_double" in caplog.text
    finally:
        compilation_cache.reset_cache()
        keep_compiled(Path(before).parent)


@pytest.mark.full_size
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinities here")
def test_a_row_is_rounded_alike_in_every_place_on_one_processor():
    code = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, numpy as np
import jaxsynth as js
from jaxsynth.models.compiled import network_jit
gen = js.load("pocket_generator")
code = np.random.default_rng(0).normal(size=(3, gen.code_size)).astype("f")
code[1] = code[0]  # the third row is spare
apply = network_jit(lambda p, z: jax.vmap(gen.apply, (None, 0))(p, z)["image"])
image = np.asarray(apply(gen.params, code))
assert np.ptp(image) > 50 and (image[0] == image[1]).all()
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_closed_streams_lead_nowhere(tmp_path):
    code = (
        "from jaxsynth.environment import prepare_streams\n"
        "prepare_streams()\n"
        "print('lost'); import sys; print('lost', file=sys.stderr)\n"
        f"with open({str(tmp_path / 'x')!r}, 'w') as f: assert f.fileno() > 2; f.write('written')"
    )
    command = [sys.executable, "-c", code]
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert closed.returncode == 0 and (tmp_path / "x").read_text() == "written"


@pytest.mark.parametrize(
    ("batch", "env", "devices"),
    [(16, {}, 2), (6, {}, 1), (16, {"JAX_NUM_CPU_DEVICES": "1"}, 1), (16, {"XLA_FLAGS": _FOUR}, 4)],
)
def test_a_training_batch_is_split_over_processors(batch, env, devices):
    code = (
        "import os; os.sched_getaffinity = lambda pid: {0, 1, 2}\n"
        "from jaxsynth.environment import split_over_processors\n"
        f"split_over_processors({batch}); import jax; print(jax.device_count())\n"
        "split_over_processors(64)  # too late, and no fault"
    )
    command = [sys.executable, "-c", code]
    own = {k: v for k, v in surroundings().items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    env = own | {"JAX_PLATFORMS": "cpu"} | env
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    assert int(done.stdout) == devices
