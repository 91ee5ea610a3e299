"""The image files of a run: written in threads while the next chunk is computed."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jaxsynth.ascent import ChunkResult
from jaxsynth.images import write_png
from jaxsynth.runs.folder import IMAGES, image_name

Show = Callable[[np.ndarray], np.ndarray]  # raw (H, W, 3) -> RGB uint8


@contextmanager
def image_writer(
    folder: Path, images: str, show: Show
) -> Iterator[Callable[[int, ChunkResult], None]]:
    """Write the image files of chunks, in a thread per core.

    Gives write(first, chunk), which hands on the images of a chunk whose first run is `first` and
    returns while they are encoded. One chunk at a time is under way: the next `write` waits for it,
    and so does the block's end, after which all files are there. Both raise what an encoding has
    raised.

    Args:
      folder: the output folder.
      images: which files, a key of `IMAGES`.
      show: makes pixels visible.
    """
    under_way: list[Future[None]] = []

    def wait() -> None:
        for one in under_way:
            one.result()
        under_way.clear()

    with ThreadPoolExecutor(os.cpu_count()) as threads:

        def write(first: int, chunk: ChunkResult) -> None:
            wait()
            for which in IMAGES[images]:
                for i, image in enumerate(getattr(chunk, which).image):
                    path = folder / image_name(first + i, which)
                    under_way.append(threads.submit(_encode, path, image, show))

        if IMAGES[images]:
            (folder / "images").mkdir(exist_ok=True)
        yield write
        wait()


def _encode(path: Path, image: np.ndarray, show: Show) -> None:
    write_png(path, show(image))
