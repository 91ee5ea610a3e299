"""The soak of `tests/soak.py`, small: tiny networks, 60 runs, one kill."""

import soak
from launching import start


def test_a_killed_sweep_leaves_the_same_bytes_and_memory_stays_flat(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "_start", lambda command: start("scene", *command[3:]))
    found, killed, wrong, count = soak.soak(tmp_path / "soak", 60, 1, 4, weights, seed=1)
    assert len(killed) == 1 and 0 < killed[0] < 15
    assert not wrong and count == 10 + 2 * 60  # pages, arrays, pictures
    assert 0 < found.last < 1.1 * found.first
