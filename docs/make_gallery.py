"""Makes the pictures of gallery.md, and the page: PHOTOGRAPHS=DIR python docs/make_gallery.py.

--page writes the page alone, with the pictures that are there. Without PHOTOGRAPHS the activation
map is left out; its pixels are generated, too. Scenes and safe mixtures only. `make_pictures.sh`
makes the pictures that other pages share.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image

DOCS = Path(__file__).parent
MOST = 1400  # pixels of a picture's longer side
SCENES = "volcano,desert-sand,bamboo_forest,swimming_pool-outdoor,aqueduct,rock_arch"


class Picture(NamedTuple):
    """One picture of the page.

    Attributes:
      name: of gallery/NAME.webp; NAME.png is a picture that another page shows, too.
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
        shared = self.name.endswith(".png")
        return DOCS / self.name if shared else DOCS / "gallery" / f"{self.name}.webp"


PICTURES = (
    Picture(
        "scene.png",
        "Scene categories",
        "Six categories, six seeds each. A row is a category: what its seeds share is what the "
        "network looks for.",
        (f"scene --scenes={SCENES} --seeds=6",),
    ),
    Picture(
        "path",
        "The path of one run",
        "From a random code to the end, at sixteen steps. `--film` writes such a film of each run.",
        ("scene --scenes=volcano --seeds=1 --film",),
        "film_run00000.webp",
    ),
    Picture(
        "morph",
        "From run to run",
        "Between two runs the codes lie on a great circle. All of them decode to an image.",
        (f"scene --scenes={SCENES} --seeds=1", "film OUT --runs=0,2,4,5 --morph"),
        "film_morph.webp",
    ),
    Picture(
        "synthesize.png",
        "Two scenes at once",
        "Objectives are added: a corn field that is a coast.",
        (
            "synthesize --term=places:log_prob:corn_field:1 --term=places:log_prob:coast:1 "
            "--seeds=8",
        ),
    ),
    Picture(
        "joint.png",
        "Two networks at once",
        "The scene network sees an iceberg, and open_nsfw sees nothing that it minds.",
        ("synthesize --term=places:log_prob:iceberg:1 --term=nsfw:log_prob:SFW:1 --seeds=8",),
    ),
    Picture(
        "diversity",
        "Seeds pushed apart",
        "`diversity` compares what block10 sees in each seed, and rewards the difference.",
        (
            "synthesize --term=places:log_prob:coast:1 --term='places:block10:*:diversity:3' "
            "--seeds=8",
        ),
    ),
    Picture(
        "photograph",
        "Another category, from an image",
        "An image of a volcano is the start; the objective is an iceberg.",
        (
            "scene --scenes=volcano --seeds=1",
            "scene --scenes=iceberg --init_image=OUT/images/run00000_best.png",
        ),
        "strip.png",
    ),
    Picture(
        "atlas.png",
        "Units of a layer",
        "Forty channels of conv_head, each at the centre of its map.",
        ("atlas --network=places --blob=conv_head --units=0:40",),
    ),
    Picture(
        "map",
        "A map of a layer",
        "An activation atlas: activations of photographs laid out in the plane, and an image for "
        "each cell. The label is the category that most photographs of the cell are given.",
        ("map --model=places --blob=conv_head --images=photographs/ --side=10",),
    ),
    Picture(
        "pixels",
        "Without a prior",
        "The same categories in plain pixels: what the classifier alone asks for.",
        (f"scene --scenes={SCENES} --generator=fourier --seeds=3",),
    ),
    Picture(
        "random_samples.png",
        "Not optimised",
        "Random codes: what the prior makes of no objective.",
        ("random_samples --seeds=16",),
    ),
)


def make(picture: Picture) -> None:
    """Carry out a picture's commands, and shrink its file."""
    photographs = os.environ.get("PHOTOGRAPHS", "")
    if "photographs/" in " ".join(picture.commands) and not photographs:
        print(f"{picture.name}: left out, it takes PHOTOGRAPHS=DIR")
        return
    with tempfile.TemporaryDirectory() as home:
        outs = [Path(home) / str(n) for n in range(len(picture.commands))]
        for n, command in enumerate(picture.commands):
            words = [
                word.strip("'")
                .replace("OUT", str(outs[n - 1]))
                .replace("photographs/", photographs)
                for word in command.replace("='", "=").split()
            ]
            out = outs[n - 1] if words[0] == "film" else outs[n]
            command = [sys.executable, "-m", f"experiments.{words[0]}", *words[1:], f"--out={out}"]
            subprocess.run(command, check=True, cwd=DOCS.parent)
        made, target = out / picture.file, picture.path
        target.parent.mkdir(exist_ok=True)
        if made.suffix == ".webp":
            shutil.copy(made, target)
            return
        with Image.open(made) as image:
            image.thumbnail((MOST, MOST))
            image.save(target, quality=85)


def page() -> str:
    """Return gallery.md: the pictures that are there, in order."""
    lines = [
        "# Gallery",
        "",
        "All pixels are generated, by the shipped networks. `bash docs/make_pictures.sh` makes all "
        "pictures again.",
    ]
    for one in PICTURES:
        lines += ["", f"## {one.title}", "", one.words, "", "```"]
        lines += [f"jaxsynth {command.replace('OUT', 'out/scene')}" for command in one.commands]
        lines += ["```"]
        if one.path.exists():
            lines += ["", f"![{one.title}]({one.path.relative_to(DOCS).as_posix()})"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for one in PICTURES:
        if "--page" not in sys.argv and not one.name.endswith(".png"):
            make(one)
    (DOCS / "gallery.md").write_text(page(), "utf-8")
