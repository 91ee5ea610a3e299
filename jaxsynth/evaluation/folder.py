"""The folder of an evaluation.

OUT/figures.json         group -> its metrics, and what they were made of (`jaxsynth.runs.parts`)
OUT/table.md             all metrics, rewritten after every group
OUT/scenes_00.png, ...   pages of `scenes`; reconstructions, nsfw, sfw, joint, random, spectra
OUT/unfinished/          sweeps under way, see `jaxsynth.runs.saving`
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxsynth.disk import write_atomic
from jaxsynth.images import write_png
from jaxsynth.report.plots import plot_spectra
from jaxsynth.report.tables import format_markdown
from jaxsynth.runs.folder import UNFINISHED
from jaxsynth.runs.parts import Parts
from jaxsynth.runs.records import model_record
from jaxsynth.runs.saving import Saving

STEM, TABLE, SPECTRA = "figures", "table.md", "spectra.png"
_PAGES = ("scenes_*", "reconstructions", "nsfw", "sfw", "joint", "random", "spectra")
_OURS = (TABLE, *(f"{name}.png" for name in _PAGES))


def open_parts(command: str, saving: Saving, models: Mapping[str, Any]) -> Parts:
    """Make the folder ready; an evaluation of the same weights that is finished is added to.

    Raises:
      ValueError: If it holds other files, a stopped evaluation, or metrics of other weights, and
        `saving` does not say what to do.
    """
    out = saving.folder
    finished = (out / f"{STEM}.json").is_file() and not (out / UNFINISHED).is_dir()
    resume = saving.resume or (finished and not saving.overwrite)
    parts = Parts(out, command, resume=resume, overwrite=saving.overwrite, stem=STEM, files=_OURS)
    for name in parts.names():
        for role, record in parts.made_of(name)["networks"].items():
            own = model_record(models[role]) if role in models else record
            if own["sha256"] != record["sha256"]:
                raise ValueError(
                    f"{out} holds figures of another {role}: choose another --out, or --overwrite"
                )
    return parts


def write_pages(out: Path, group: str, pages: Mapping[str, Image.Image]) -> None:
    """Write a group's pages; delete numbered ones of an earlier evaluation."""
    for old in out.glob(f"{group}_*.png"):
        old.unlink()
    for name, page in pages.items():
        write_png(out / name, np.asarray(page.convert("RGB")))


def write_table(parts: Parts, groups: Sequence[str]) -> None:
    """Write table.md: a row for every number, and how each group was made."""
    found = [name for name in groups if name in parts.names()]
    rows = [
        {"group": name, "metric": metric, "value": text}
        for name in found
        for metric, value in parts.value(name)["metrics"].items()
        if (text := _text(value))
    ]
    lines = [format_markdown(rows)]
    if missing := [name for name in groups if name not in found]:
        lines += [f"Not measured: {', '.join(missing)}.", ""]
    made: dict[str, list[str]] = {}  # command and hardware -> groups
    for name in found:
        how = f"`{parts.command(name)}`, {parts.value(name)['hardware']}"
        made.setdefault(how, []).append(name)
    lines += [f"* {', '.join(names)}: {how}" for how, names in made.items()]
    write_atomic(parts.folder / TABLE, ("\n".join(lines) + "\n").encode())


def _text(value: Any) -> str:
    """Return a number, or a few named ones, as text; nothing for curves and what is missing."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {number:+.1f}" for name, number in value.items())
    return f"{value:.4g}" if isinstance(value, int | float) else ""


def draw_spectra(parts: Parts, chosen: Sequence[str]) -> str:
    """Draw spectra.png from what is measured; return one line if that is impossible."""
    names = ("spectrum", "scenes")
    if not set(names) & set(chosen):
        return ""
    done = [parts.value(name)["metrics"] if name in parts.names() else None for name in names]
    return plot_spectra(parts.folder / SPECTRA, *done)
