"""The strip: from a photograph to the end image, one row of captioned pictures per run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxsynth.images import to_rgb
from jaxsynth.maximize import Run
from jaxsynth.models.network import Network
from jaxsynth.report.html import BLUR_ABOVE
from jaxsynth.report.path import PHOTOGRAPH, Picture
from jaxsynth.report.rows import score_lines, scores
from jaxsynth.report.sheet import Tile, contact_sheet

STRIP = "strip.png"
STRIP_ROWS = 20  # a strip of more runs is no longer a page


class Strip(NamedTuple):
    """A drawn strip: its file's name, and the highest P(NSFW) of its pictures (None: unknown)."""

    file: str
    nsfw: float | None


def write_strip(
    folder: Path,
    title: str,
    runs: Sequence[Run],
    paths: Sequence[Sequence[Picture]],
    statuses: Sequence[str],
    networks: Mapping[str, Network],
    show: str = "mean",
    blur: bool = False,
) -> Strip:
    """Draws the paths of the first runs, as many as there are, into strip.png.

    Args:
      folder: where.
      title: heading of the page.
      runs, statuses: of the sweep; those without a path are left out.
      paths: pictures of equally many steps for every run (`jaxsynth.report.path.path_pictures`).
      networks: role -> network, for the captions.
      show: how generated pixels become visible; the photograph is shown as it is.
      blur: blurs pictures of P(NSFW) > 0.5.
    """
    tiles, seen = [], []
    for run, path, status in zip(runs, paths, statuses, strict=False):
        for picture in path:
            said = scores(run.terms, networks, {"last": picture.watched})
            nsfw = said.get("nsfw_last")
            seen.append(np.nan if nsfw is None else float(nsfw))
            tiles.append(
                Tile(
                    to_rgb(picture.image, "mean" if picture.name == PHOTOGRAPH else show),
                    (picture.name, *score_lines(said)),
                    blur=blur and (nsfw or 0) > BLUR_ABOVE,
                    flag=status if picture is path[-1] and status != "ok" else "",
                )
            )
    if len(paths) < len(runs):
        title = f"{title} (first {len(paths)} of {len(runs)} runs)"
    labels = [_label(run) for run in runs[: len(paths)]]
    sheet = contact_sheet(tiles, len(paths[0]), title, labels if any(labels) else ())
    sheet.save(folder / STRIP)
    return Strip(STRIP, max(filter(np.isfinite, seen), default=None))


def _label(run: Run) -> str:
    """A run's place without its seed: from a photograph all seeds start alike."""
    parts = [part for place in (run.row, run.column) for part in place.split(", ")]
    return " · ".join(part for part in parts if part and part != f"seed {run.seed}")
