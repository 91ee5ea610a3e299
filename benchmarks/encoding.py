"""How fast image files are encoded and how large they are; run from the repository's root.

  python -m benchmarks.encoding

Pictures are pieces of docs/scene.png, at the pocket generator's 64 pixels and, enlarged, at 256: a
generator of that size paints more detail, so its files are larger than those counted here. Threads
as `--images` has them, one per core. CPU time counts the work whatever else the machine does.
"""

import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from jaxsynth.environment import hardware
from jaxsynth.images import BGR_MEAN, to_rgb
from jaxsynth.report.tables import format_markdown
from jaxsynth.runs.saving import image_writer

_SHOWN = 160  # side of a picture on the sheet
_COUNTS = {64: 400, 256: 40}  # side -> pictures


def main() -> None:
    page = Image.open(Path(__file__).parents[1] / "docs" / "scene.png").convert("RGB")
    rows = [_measure(page, side, count) for side, count in _COUNTS.items()]
    print(f"`python -m benchmarks.encoding`\n\n* {hardware()}\n\n{format_markdown(rows)}")


def _measure(page: Image.Image, side: int, count: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    corners = rng.integers((0, 0), (page.width - _SHOWN, page.height - _SHOWN), (count, 2))
    pieces = [page.crop((x, y, x + _SHOWN, y + _SHOWN)).resize((side, side)) for x, y in corners]
    pixels = np.stack([np.asarray(p, np.float32)[..., ::-1] - BGR_MEAN for p in pieces])
    chunk = SimpleNamespace(best=SimpleNamespace(image=pixels))
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        with image_writer(Path(folder), "best", to_rgb) as write:
            write([[i] for i in range(count)], chunk)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        sizes = [path.stat().st_size for path in Path(folder).rglob("*.png")]
    return {
        "side": side,
        "pictures": count,
        "threads": os.cpu_count(),
        "pictures / s": f"{count / wall:.0f}",
        "CPU ms / picture": f"{1e3 * cpu / count:.2f}",
        "kB / picture": f"{np.mean(sizes) / 1e3:.1f}",
    }


if __name__ == "__main__":
    main()
