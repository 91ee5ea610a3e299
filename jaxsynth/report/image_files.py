"""The image files of a sweep: which there are, and the threads that encode them."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jaxsynth.chunks import Results
from jaxsynth.images import to_rgb, write_png

IMAGES = {"none": (), "best": ("best",), "all": ("last", "best")}  # choice -> a run's image files


def image_name(run: int, which: str) -> str:
    """Path of a run's image relative to the output folder; `which` is `last` or `best`."""
    return f"images/run{run:05d}_{which}.png"


@contextmanager
def image_writer(folder: Path, images: str, how: str) -> Iterator[Callable[[int, Results], None]]:
    """Gives write(first, chunk), which hands the image files of a chunk, whose first run is
    `first`, to a thread per core, and comes back while they are encoded.

    One chunk at a time is under way: the next `write` waits for it, and so does the block's end,
    after which all files are there. Both raise what an encoding has raised.

    Args:
      folder: the output folder.
      images: the choice, one of `IMAGES`.
      how: how pixels become visible (`to_rgb`).
    """
    under_way: list[Future[None]] = []

    def wait() -> None:
        for one in under_way:
            one.result()
        under_way.clear()

    with ThreadPoolExecutor(os.cpu_count()) as threads:

        def write(first: int, chunk: Results) -> None:
            wait()
            for which in IMAGES[images]:
                for i, image in enumerate(getattr(chunk, which).image):
                    path = folder / image_name(first + i, which)
                    under_way.append(threads.submit(_encode, path, image, how))

        if IMAGES[images]:
            (folder / "images").mkdir(exist_ok=True)
        yield write
        wait()


def _encode(path: Path, image: np.ndarray, how: str) -> None:
    write_png(path, to_rgb(image, how))
