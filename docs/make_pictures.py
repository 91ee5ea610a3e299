"""Makes the pictures of the pages, and gallery.md: python docs/make_pictures.py [NAME ...].

--photographs=DIR is for the activation map, which is left out without it; its pixels are generated,
too. Names choose among the pictures. --page writes the page alone, with the pictures that are
there. Scenes and safe mixtures only.
"""

import argparse
import hashlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from PIL import Image

DOCS = Path(__file__).parent
MOST = 1400  # pixels of a picture's longer side
SCENES = "volcano,desert-sand,bamboo_forest,golf_course,iceberg,market-outdoor"


class Picture(NamedTuple):
    """One picture of the page.

    Attributes:
      name: of pictures/NAME.webp.
      title: its heading.
      words: its text.
      commands: that make it; OUT is the folder of the one before.
      file: in the last one's folder.
    """

    name: str
    title: str
    words: str
    commands: tuple[str, ...]
    file: str = "contact_sheet.png"

    @property
    def path(self) -> Path:
        """Where the picture is."""
        return DOCS / "pictures" / f"{self.name}.webp"


PICTURES = (
    Picture(
        "scene",
        "Scene categories",
        "Six categories, six seeds each. A row is a category: what its seeds share is what the "
        "network looks for.",
        (f"scene --scenes={SCENES} --seeds=6",),
    ),
    Picture(
        "path",
        "The path of one run",
        "From a random code to the end, at sixteen steps. `--film` writes such a film of each run.",
        (f"scene --scenes={SCENES} --seeds=1 --film --out=out/path",),
        "film_run00000.webp",
    ),
    Picture(
        "morph",
        "From run to run",
        "Between runs of the same sweep, codes on a great circle. Each decodes to an image.",
        (
            f"scene --scenes={SCENES} --seeds=1 --film --out=out/path",
            "film OUT --runs=0,2,5 --morph",
        ),
        "film_morph.webp",
    ),
    Picture(
        "synthesize",
        "Two scenes at once",
        "Objectives are added: a corn field that is a coast.",
        (
            "synthesize --term=places:log_prob:corn_field:1 --term=places:log_prob:coast:1 "
            "--seeds=8",
        ),
    ),
    Picture(
        "joint",
        "Two networks at once",
        "The scene network sees an iceberg, and open_nsfw sees nothing that it minds.",
        (
            "synthesize --term=places:log_prob:iceberg:1 --term=nsfw:log_prob:SFW:1 --seeds=8 "
            "--out=out/joint",
        ),
    ),
    Picture(
        "sfw",
        "The safe end of a score",
        "What open_nsfw minds least.",
        ("sfw --seeds=8",),
    ),
    Picture(
        "pareidolia",
        "Two neurons against each other",
        "Both neurons of open_nsfw before its softmax, with six pairs of weights.",
        ("pareidolia --alphas=1,2,4 --betas=0.5,1",),
    ),
    Picture(
        "diversity",
        "Seeds pushed apart",
        "`diversity` compares what block10 sees in each seed, and rewards the difference.",
        (
            "synthesize --term=places:log_prob:coast:1 --term='places:block10:*:diversity:3' "
            "--seeds=8 --out=out/apart",
        ),
    ),
    Picture(
        "photograph",
        "Another category, from an image",
        "The volcano above is the start; the objective is an iceberg.",
        (
            f"scene --scenes={SCENES} --seeds=1 --film --out=out/path",
            "scene --scenes=iceberg --init_image=OUT/images/run00000_best.png --out=out/iceberg",
        ),
        "strip.png",
    ),
    Picture(
        "atlas",
        "Units of a layer",
        "Forty channels of conv_head, each at the centre of its map.",
        ("atlas --network=places --blob=conv_head --units=0:40",),
    ),
    Picture(
        "map",
        "A map of a layer",
        "An activation atlas: activations of photographs laid out in the plane, and an image for "
        "each cell. The label is the commonest category of its photographs; often few share it.",
        ("map --model=places --blob=conv_head --images=photographs/ --side=8 --blur_sheet",),
    ),
    Picture(
        "pixels",
        "Without a prior",
        "The same categories in plain pixels: what the classifier alone asks for.",
        (f"scene --scenes={SCENES} --generator=fourier --seeds=2 --out=out/pixels",),
    ),
    Picture(
        "random_samples",
        "Not optimised",
        "Random codes: what the prior makes of no objective.",
        ("random_samples --seeds=16",),
    ),
)


def make(picture: Picture, home: Path, photographs: str, steps: int) -> None:
    """Carry out a picture's commands, those that were not yet, and shrink its file."""
    begun, out = monotonic(), home
    for command in picture.commands:
        line = command.replace("OUT", str(out)).replace("photographs/", photographs)
        if not line.startswith("film "):
            out = home / hashlib.sha256(line.encode()).hexdigest()[:16]
        name, *words = shlex.split(line)
        words += [f"--steps={steps}"] * (steps > 0 and name not in ("film", "random_samples"))
        if not out.exists() or name == "film":
            words = [sys.executable, "-m", f"experiments.{name}", *words, f"--out={out}"]
            subprocess.run(words, check=True, cwd=DOCS.parent)
    picture.path.parent.mkdir(exist_ok=True)
    if picture.file.endswith(".webp"):
        shutil.copyfile(out / picture.file, picture.path)
    else:
        with Image.open(out / picture.file) as image:
            image.thumbnail((MOST, MOST))
            image.save(picture.path, quality=88, method=6)
    size = picture.path.stat().st_size // 1000
    print(f"{picture.path}: {size} kB, {monotonic() - begun:.0f} s", flush=True)


def page() -> str:
    """Return gallery.md: the pictures that are there, in order."""
    lines = [
        "# Gallery",
        "",
        "All pixels are generated, by the shipped networks.",
        "`python docs/make_pictures.py --photographs=DIR` makes all pictures again.",
    ]
    seen: list[str] = []
    for one in PICTURES:
        lines += ["", f"## {one.title}", "", one.words, "", "```"]
        new = [command for command in one.commands if command not in seen]
        lines += [f"jaxsynth {command.replace('OUT', 'out/path')}" for command in new]
        lines += ["```"]
        seen += new
        if one.path.exists():
            lines += ["", f"![{one.title}]({one.path.relative_to(DOCS).as_posix()})"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="*")
    parser.add_argument("--photographs", default="", help="a folder of image files")
    parser.add_argument("--steps", type=int, default=0, help="fewer, to try this script")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    asked = parser.parse_args()
    if unknown := set(asked.name) - {one.name for one in PICTURES}:
        parser.error(f"no picture is named {unknown}: {[one.name for one in PICTURES]}")
    with tempfile.TemporaryDirectory() as home:
        for one in PICTURES:
            chosen = not asked.page and (not asked.name or one.name in asked.name)
            if chosen and "photographs/" in " ".join(one.commands) and not asked.photographs:
                print(f"{one.path} is left out: it takes --photographs=DIR")
            elif chosen:
                make(one, Path(home), str(Path(asked.photographs).absolute()), asked.steps)
    (DOCS / "gallery.md").write_text(page(), "utf-8")
