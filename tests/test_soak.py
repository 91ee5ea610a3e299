"""The soak of `tests/soak.py`, small: tiny networks, 60 runs, one kill."""

from soak import soak
from tiny import save_tiny_networks


def test_a_killed_sweep_leaves_the_same_bytes_and_memory_stays_flat(tmp_path):
    weights = save_tiny_networks(tmp_path)
    found, killed, wrong, count = soak(tmp_path / "soak", 60, 1, batch=4, flags=weights, seed=1)
    assert len(killed) == 1 and 0 < killed[0] < 15
    assert not wrong and count == 10 + 2 * 60  # pages, arrays, pictures
    assert 0 < found.last < 1.1 * found.first
