"""Draws an activation atlas of a layer: your photographs as a map, an image for each cell of it.

  python -m experiments.map --model=places --blob=conv_head --images=DIR
  python -m experiments.map --model=places --blob=pool --images=DIR --side=12 --layout=umap

DIR is a folder, an image or a zip; --images may be repeated. The layer's activations at random
places of the photographs are laid out in the plane and gathered in the cells of a grid. Each cell's
direction is maximised, all in one sweep. The page is contact_sheet.png; the explorer shows each
cell's image with the photographs that are in it, and map.csv lists them. After Carter et al.
2019, "Exploring Neural Networks with Activation Atlases".
"""

import dataclasses
from typing import Any

from jaxsynth.activation_map import LAYOUTS, Cell, Samples, map_cells, sample
from jaxsynth.image_search import find_images
from jaxsynth.inputs import option
from jaxsynth.maximize import Run
from jaxsynth.report.photographs import cell_photographs, map_page
from jaxsynth.report.tables import write_csv
from jaxsynth.scoring import sensitive_score

from .common import launch
from .examples import PhotographFlags, load_one
from .flags import like
from .launch import run_experiment
from .run_flags import RunFlags

TABLE = "map.csv"


@dataclasses.dataclass(frozen=True)
class Flags(PhotographFlags):
    """The flags of this launcher."""

    side: int = option(8, "Cells of a row and of a column of the map.", low=2, high=40)
    per_image: int = option(
        4, "Random places of a spatial layer looked at in each photograph.", low=1
    )
    layout: str = option("pca", "How the plane is found; umap takes umap-learn.", among=LAYOUTS)
    least: int = option(2, "Samples of a cell; one of fewer stays empty.", low=1)
    top: int = option(4, "Photographs shown of each cell.", low=1)
    seeds: str = like(RunFlags, "seeds", "1")


def main(flags: Flags) -> int:
    """Draw a map of a layer."""
    flags, models, model = load_one(flags)
    files = find_images(flags.images)
    found = sample(model, flags.blob, files.files, flags.per_image)
    for line in (*files.left_out, *found.unread):
        print(f"left out: {line}")
    cells = map_cells(found, model.class_names, flags.side, flags.layout, flags.least)
    if not cells:
        raise ValueError(f"no cell has --least={flags.least} samples: give more images")
    runs = [
        Run(seed, model.direction(flags.blob, cell.direction), f"y {cell.row}", f"x {cell.column}")
        for cell in cells
        for seed in flags.seed_numbers[:1]
    ]
    sensitive = sensitive_score(models.classifiers.values())
    shown = cell_photographs(found, cells, model, flags.blob, flags.top, sensitive)
    title = f"{model.name}:{flags.blob}, a map of {len(found.files)} photographs"
    flags = dataclasses.replace(flags, images="all")
    code = launch(flags, models, runs, title, map_page(cells, flags.side), shown)
    write_csv(flags.folder / TABLE, _rows(found, cells))
    print(f"map            {flags.folder / TABLE}")
    return code


def _rows(found: Samples, cells: list[Cell]) -> list[dict[str, Any]]:
    """Return a row for every sample of a cell, the nearest to its mean first."""
    rows = []
    for cell in cells:
        for n in cell.members:
            (row, column), file = map(int, found.places[n]), str(found.files[found.number[n]])
            at = {"cell_y": cell.row, "cell_x": cell.column, "label": cell.label}
            rows.append(at | {"file": file, "row": row, "column": column})
    return rows


if __name__ == "__main__":
    run_experiment(main, Flags)
