"""Compiled programs are saved on disk: a second process of a launcher compiles nothing."""

import json
import subprocess
import sys
from pathlib import Path

from launching import ROOT, environment
from tiny import save_tiny_networks

COUNTED = """
import collections, json, sys
sys.path.append("tests")
import jax, quick
from experiments import {name} as launcher
from experiments.launch import run_experiment

counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event]))
try:
    run_experiment(launcher.main, launcher.Flags)
finally:
    asked = "/jax/compilation_cache/compile_requests_use_cache"
    print(json.dumps([counts[asked], counts["/jax/compilation_cache/cache_hits"]]))
"""


def _programs(name: str, cache: Path, *flags: str) -> tuple[int, int]:
    """Programs that a process of this launcher asked for, and those that it found on disk."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED.format(name=name), "--noprogress", *flags],
        cwd=ROOT,
        env=environment() | {"JAXSYNTH_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def test_a_second_process_compiles_nothing(tmp_path):
    weights, cache = save_tiny_networks(tmp_path), tmp_path / "cache"
    flags = [*weights, "--scenes=abbey", "--steps=3", "--batch=2", "--recipe=cnnpref"]
    asked, found = _programs("scene", cache, *flags, "--seeds=3", f"--out={tmp_path / 'first'}")
    assert asked > found
    asked, found = _programs("scene", cache, *flags, "--seeds=5:8", f"--out={tmp_path / 'second'}")
    assert asked == found > 0
