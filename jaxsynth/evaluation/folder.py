"""The folder of an evaluation: figures.json and table.md, rewritten after every group.

figures.json         group -> values, command, sweeps, hashes, versions, hardware, seconds
table.md             the figures against what the weights must reach
scenes_00.png, ...   pages of `scene`; reconstructions, nsfw, sfw, joint, random, spectra .png
unfinished/          sweeps under way, see `jaxsynth.runs.keep`
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from jaxsynth.disk import write_whole
from jaxsynth.evaluation.sheets import plot_spectra
from jaxsynth.evaluation.table import markdown_table
from jaxsynth.runs.folder import LOCK, UNFINISHED, occupied

FIGURES, TABLE, SPECTRA = "figures.json", "table.md", "spectra.png"
_PAGES = ("scenes_*", "reconstructions", "nsfw", "sfw", "joint", "random", "spectra")
_OURS = (FIGURES, TABLE, *(f"{name}.png" for name in _PAGES))

Records = dict[str, Any]  # group -> its record


def earlier_records(
    folder: Path, digests: Mapping[str, str], resume: bool, overwrite: bool
) -> Records:
    """What an earlier evaluation of the same weights left in the folder; changes nothing.

    Args:
      digests: role -> sha256 of the weights that will be measured.
      resume: a stopped evaluation is gone on with.
      overwrite: an evaluation of other weights, a stopped one, or other files, are no obstacle.

    Raises:
      ValueError: if it holds other files, a stopped evaluation, or figures of other weights, and
        the flags do not say what to do.
    """
    path = folder / FIGURES
    try:
        before = json.loads(path.read_text()) if path.is_file() else {}
        other = _other_weights(before, digests)
        names = {p.name for p in folder.iterdir()} if folder.exists() else set()
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"output folder {folder} cannot be used: {error}") from None
    if UNFINISHED in names and not (resume or overwrite):
        raise ValueError(occupied(folder))
    if not other and (before or names <= {LOCK, UNFINISHED}):
        return before
    if not overwrite:
        what = f"figures of another {other}" if other else "other files"
        raise ValueError(f"{folder} holds {what}: choose another --out, or --overwrite")
    return {}


def make_folder(folder: Path, fresh: bool, resume: bool) -> None:
    """Makes the folder; `fresh` deletes the files of an earlier evaluation, and no others. Unless
    `resume`, sweeps that were under way go."""
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    if fresh:
        for old in [path for name in _OURS for path in folder.glob(name)]:
            old.unlink()


def write_pages(folder: Path, group: str, pages: Mapping[str, Image.Image]) -> None:
    """Writes a group's pages; numbered ones of an earlier evaluation go."""
    for old in folder.glob(f"{group}_*.png"):
        old.unlink()
    for name, page in pages.items():
        page.save(folder / name)


def write_records(folder: Path, done: Records, order: Sequence[str]) -> None:
    """Writes figures.json and table.md, each whole; `order` names all groups there are."""
    found = [name for name in order if name in done]
    lines = [markdown_table({name: done[name]["values"] for name in found})]
    if missing := [name for name in order if name not in done]:
        lines += [f"Not measured: {', '.join(missing)}.", ""]
    made: dict[str, list[str]] = {}  # command and hardware -> what they made
    for name in found:
        how = f"`{done[name]['command']}`, {done[name]['hardware']}"
        made.setdefault(how, []).append(f"{name} ({done[name]['seconds']:.0f} s)")
    lines += [f"* {', '.join(names)}: {how}" for how, names in made.items()]
    write_whole(folder / FIGURES, (json.dumps(done, indent=1) + "\n").encode())
    write_whole(folder / TABLE, ("\n".join(lines) + "\n").encode())


def write_spectra(folder: Path, done: Records) -> str:
    """Draws spectra.png from what was measured; one line if it cannot, else ""."""
    found = [done[name]["values"] if name in done else None for name in ("spectrum", "scenes")]
    return plot_spectra(folder / SPECTRA, *found)


def _other_weights(before: Records, digests: Mapping[str, str]) -> str:
    """The first role whose weights are not those of an earlier evaluation, or ""."""
    for record in before.values():
        for role, network in record["networks"].items():
            if digests.get(role, network["sha256"]) != network["sha256"]:
                return role
    return ""
