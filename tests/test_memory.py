"""Short of memory: a chunk continues in halves, as so small a batch would; or there is one line."""

import dataclasses
import platform
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from finished import read_arrays
from launching import environment, run
from short import Run, Sweep, Term, execute, join, plan
from tiny import save_tiny_networks, tiny_networks

from jaxsynth import programs
from jaxsynth.devices import Slices, share_rows
from jaxsynth.recipes import Recipe
from jaxsynth.runs.checkpoint import load_progress, save_progress
from jaxsynth.runs.folder import UNFINISHED

ROOT = Path(__file__).parents[1]
TERMS = (Term("places", "fc8", (1,), 1.0), Term("nsfw", "log_odds", (0,), 0.5))
FULL = "RESOURCE_EXHAUSTED: Out of memory allocating 123456 bytes."
RECIPE = Recipe(
    steps=7, prior=0.1, jitter=2, optimizer_args=(("momentum", 0.9),), last_image="last_forward"
)


@pytest.mark.parametrize(("batch", "at_once", "shares"), [
    (4, 4, 1), (4, 2, 1), (5, 3, 1), (5, 2, 3), (7, 1, 2), (1, 1, 2), (8, 3, 4)
])  # fmt: skip
def test_slices_give_the_chunk_back(batch, at_once, shares):
    whole = np.arange(batch * shares)
    slices = Slices(shares, batch, at_once)
    cut = slices.cut({"a": whole, "b": whole[:, None] * 2})
    assert {len(part["a"]) for part in cut} == {shares * min(at_once, batch)}
    np.testing.assert_array_equal(slices.join(cut)["a"], whole)
    across = slices.join([part["b"].T for part in cut], axis=1)
    np.testing.assert_array_equal(across[0], 2 * whole)


@pytest.mark.parametrize("spare", [False, True])
def test_a_spare_row_takes_the_last_place(spare, monkeypatch):
    monkeypatch.setattr("jaxsynth.devices.rounds_by_place", lambda: spare)
    assert [share_rows(batch) for batch in (1, 2, 8)] == [1, 2 + spare, 8 + spare]


def limit_memory(monkeypatch, rows: int) -> list[int]:
    """From now on the step of more than `rows` rows does not fit; gives the rows of all calls."""
    asked, real = [], programs.respond_jit

    def see(*args):
        asked.append(len(args[-2]))
        if asked[-1] > rows:
            raise jax.errors.JaxRuntimeError(FULL)
        return real(*args)

    monkeypatch.setattr(programs, "respond_jit", see)
    return asked


def todo(batch: int, steps: int = 7):
    networks = tiny_networks() | {"encoder": tiny_networks()["places"]}
    recipe = dataclasses.replace(RECIPE, steps=steps)
    settings = Sweep(recipe, batch=batch, record=(2, 6)[: steps // 3])
    return plan(networks, [Run(seed, TERMS) for seed in range(7)], settings)


@pytest.mark.parametrize("spare", [False, True])
def test_a_halved_chunk_is_bit_equal_to_a_sweep_of_the_smaller_batch(spare, monkeypatch, tmp_path):
    monkeypatch.setattr("jaxsynth.devices.rounds_by_place", lambda: spare)
    small = join(list(execute(todo(2))))
    (tmp_path / UNFINISHED).mkdir()

    def keep(first, done, values, snapshot):
        assert len(values) == min(4, 7 - first)
        if (first, done) == (4, 3):
            save_progress(tmp_path, first, snapshot())

    asked, said = limit_memory(monkeypatch, 3), []
    chunks = list(execute(todo(4), keep, on_halved=said.append))
    assert said == [2] and asked[0] == share_rows(4) and set(asked[1:]) == {share_rows(2)}
    assert [len(chunk.codes) for chunk in chunks] == [4, 3]
    jax.tree.map(np.testing.assert_array_equal, join(chunks), small)

    # its state half-way continues in slices, or in one chunk, to the same bits
    again = list(execute(todo(4), chunks=(4,), under_way=load_progress(tmp_path, 4)))
    jax.tree.map(np.testing.assert_array_equal, again[0], chunks[1])
    monkeypatch.undo()
    monkeypatch.setattr("jaxsynth.devices.rounds_by_place", lambda: spare)
    whole = next(execute(todo(4), chunks=(4,), under_way=load_progress(tmp_path, 4)))
    np.testing.assert_array_equal(whole.objective[:, :3], chunks[1].objective[:, :3])
    np.testing.assert_allclose(whole.codes, chunks[1].codes, atol=0.2)


def test_what_does_not_fit_at_all_and_other_errors_are_not_swallowed(monkeypatch):
    said = []
    asked = limit_memory(monkeypatch, 0)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        list(execute(todo(4, steps=1), on_halved=said.append))
    assert said == [2, 1] and asked == [share_rows(n) for n in (4, 2, 1)]

    def broken(*_args):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(programs, "respond_jit", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        list(execute(todo(4, steps=1), on_halved=said.append))
    assert len(said) == 2


def _scene(weights, out: Path, *flags) -> subprocess.CompletedProcess:
    given = ["--scenes=abbey,dam", "--seeds=4", "--steps=5", "--noprogress", f"--out={out}"]
    return run("scene", *weights, *given, *flags)


def test_a_launcher_says_it_once_or_gives_advice(tmp_path, monkeypatch):
    weights = save_tiny_networks(tmp_path)
    with monkeypatch.context() as patch:
        limit_memory(patch, 3)
        done = _scene(weights, tmp_path / "run", "--batch=4")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "out of memory: continuing with 2 runs at once, as --batch=2 computes them"
    ]
    small = _scene(weights, tmp_path / "small", "--batch=2")
    assert small.returncode == 0 and not small.stderr
    found = read_arrays(tmp_path / "run"), read_arrays(tmp_path / "small")
    jax.tree.map(np.testing.assert_array_equal, *found)

    def see(*args):
        raise MemoryError("Unable to allocate 9.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(programs, "respond_jit", see)
        host = _scene(weights, tmp_path / "host", "--batch=4")
    assert host.returncode == 2 and host.stderr.count("\n") == 1
    assert "out of memory on the host (Unable to allocate 9.00 GiB)" in host.stderr
    assert "a smaller --batch" in host.stderr
    with monkeypatch.context() as patch:
        limit_memory(patch, 0)
        none = _scene(weights, tmp_path / "none", "--batch=2")
    assert none.returncode == 2 and "even with one run at once" in none.stderr.splitlines()[-1]
    gone_on = _scene(weights, tmp_path / "host", "--batch=4", "--resume")
    assert gone_on.returncode == 0, gone_on.stderr


_PAGES = """
import resource
import jaxsynth
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    before = used()
    b"x" * (200 << 20)
    new = used() - before
print(new)
"""


def _new_pages(**own: str) -> int:
    """How many new pages a block of 200 MB takes when one as large has just been given back."""
    how = {"cwd": ROOT, "env": environment() | own, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", _PAGES], **how)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its memory is what can be kept")
def test_memory_given_back_stays_but_where_malloc_is_set_otherwise():
    assert 20 * _new_pages() < _new_pages(MALLOC_ARENA_MAX="8")
