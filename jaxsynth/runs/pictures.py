"""The image files of a run: written in threads while the next chunk is computed."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jaxsynth.ascent import ChunkResult
from jaxsynth.images import write_png
from jaxsynth.png_text import KEYWORD
from jaxsynth.runs.folder import IMAGES, image_name

Show = Callable[[np.ndarray], np.ndarray]  # raw (H, W, 3) -> RGB uint8
Text = Callable[[int, str], str]  # run, `last` or `best` -> what made its image


@contextmanager
def image_writer(
    folder: Path, images: str, show: Show, text: Text = lambda run, which: ""
) -> Iterator[Callable[[Sequence[Sequence[int]], ChunkResult], None]]:
    """Write the image files of chunks, in a thread per core.

    Gives write(numbers, chunk), which returns while the chunk's images are encoded; each has the
    numbers of the runs that it is of. The next `write` waits for them, and so does the block's end.
    Both raise what an encoding has raised.

    Args:
      folder: the output folder.
      images: which files, a key of `IMAGES`.
      show: makes pixels visible.
      text: that travels in each file, see `jaxsynth.png_text`.
    """
    under_way: list[Future[None]] = []

    def wait() -> None:
        while under_way:
            under_way.pop(0).result()

    def encode(runs: Sequence[int], which: str, image: np.ndarray) -> None:
        for run in runs:
            said = text(run, which)
            path = folder / image_name(run, which)
            write_png(path, show(image), {KEYWORD: said} if said else None)

    def write(numbers: Sequence[Sequence[int]], chunk: ChunkResult) -> None:
        wait()
        for which in IMAGES[images]:
            for image, runs in zip(getattr(chunk, which).image, numbers, strict=True):
                under_way.append(threads.submit(encode, runs, which, image))

    if IMAGES[images]:
        (folder / "images").mkdir(exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield write
        wait()
