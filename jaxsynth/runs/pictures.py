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

    Gives write(first, chunk), which returns while the chunk's images are encoded. The next `write`
    waits for them, and so does the block's end. Both raise what an encoding has raised.

    Args:
      folder: the output folder.
      images: which files, a key of `IMAGES`.
      show: makes pixels visible.
    """
    under_way: list[Future[None]] = []

    def wait() -> None:
        while under_way:
            under_way.pop(0).result()

    def encode(path: Path, image: np.ndarray) -> None:
        write_png(path, show(image))

    def write(first: int, chunk: ChunkResult) -> None:
        wait()
        for which in IMAGES[images]:
            for i, image in enumerate(getattr(chunk, which).image, first):
                under_way.append(threads.submit(encode, folder / image_name(i, which), image))

    if IMAGES[images]:
        (folder / "images").mkdir(exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield write
        wait()
