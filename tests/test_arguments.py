"""A wrong value of any flag is one line, exit code 2, before anything compiles or is written."""

import io
import os
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from in_process import Outcome, run_cases
from PIL import Image
from tiny import save_tiny_networks

# What is typed, and what the line must say; {files} is the folder of `_files`.
WRONG: dict[str, list[tuple[str, str]]] = {
    "nsfw": [
        ("--steps=-1", "steps is -1"),
        ("--steps=1.5", "--steps=1.5"),
        ("--step=3", "Did you mean: steps"),
        ("--recipe=gho", "goh|pocket"),
        ("--seeds=8:2", "rising range"),
        ("--seeds=", "--seeds=: expected"),
        ("--seeds=0", "--seeds=0"),
        ("--seeds=-1", "--seeds=-1"),
        ("--seeds=1.5", "--seeds=1.5"),
        ("--seeds=99999999999", "at most 1000000"),
        ("--seeds=100000000000000000000", "at most 1000000"),
        ("--optimizer=sdg", "did you mean sgd"),
        ("--optimizer=__doc__", "does not exist"),
        ("--optimizer=optax:lbfgs", "needs more than gradients"),
        ("--optimizer=cma_ess", "did you mean cma_es"),
        ("--optimizer=cma_es+3", "an even number"),
        ("--optimizer_args=momentum=x", "expected name=number"),
        ("--optimizer_args=momentun=0.9", "momentun"),
        ("--normalize=maybe", "maybe"),
        ("--schedule=linar", "linear"),
        ("--lr_start=0", "a positive number"),
        ("--lr_start=nan", "a positive number"),
        ("--lr_start=x", "--lr_start=x"),
        ("--lr_end=-1", "from 0 up"),
        ("--decay=1.5", "(0, 1]"),
        ("--decay_when=never", "before|after"),
        ("--box=uper", "upper"),
        ("--last_image=first", "final"),
        ("--start=random", "clipped_normal"),
        ("--start=code", "no mean and sigma"),
        ("--prior=2", "[0, 1]"),
        ("--prior=nan", "[0, 1]"),
        ("--jitter=-1", "jitter is -1"),
        ("--jitter=1000", "only 16 pixels"),
        ("--balance=even", "alternate"),
        ("--precision=float16", "float64"),
        ("--record_codes=0", "1..300"),
        ("--record_codes=400", "1..300"),
        ("--record_codes=x", "steps such as"),
        ("--batch=0", "--batch=0"),
        ("--batch=-3", "--batch=-3"),
        ("--show=x", "dgn_am"),
        ("--target=lgit", "logit"),
        ("--out=", "names no folder"),
        ("--out={files}/text", "a file has its name"),
        ("--out={files}/text/x", "a file has its name"),
        ("--save_seconds=-1", "--save_seconds=-1"),
        ("--save_seconds=nan", "--save_seconds=nan"),
        ("--devices=0", "--devices=0"),
        ("--devices=99", "there are 1 here"),
        ("--num_processes=2", "go together"),
        ("--coordinator=here --num_processes=1 --process_id=0", "expected HOST:PORT"),
        ("--unknown=3", "unknown"),
        ("extra", "unexpected argument 'extra'"),
        ("--resume --overwrite", "give one of them"),
        ("--generator=nothing", "'nothing'"),
        ("--generator=", "network ''"),
        ("--generator={files}", "is no file"),
        ("--generator={files}/pipe", "is no file"),
        ("--generator={files}/text", "is a text, expected a weights file"),
        ("--generator={places}", "expected a generator"),
        ("--nsfw={places}", "not SFW and NSFW"),
        ("--places={generator}", "expected a classifier"),
        ("--prior=0.1 --encoder={nsfw}", "codes of 8 units"),
        ("--prior=0.1 --encoder=nothing", "'nothing'"),
        ("--init_codes=absent.npy", "No such file"),
        ("--init_codes={files}", "is a folder"),
        ("--init_codes={files}/pipe", "pipe"),
        ("--init_codes={files}/text", "a text; expected FILE.npy"),
        ("--init_codes={files}/pickle.npy", "it holds Python objects"),
        ("--init_codes={files}/words.npy", "expected floats (1, 12)"),
        ("--init_codes={files}/short.npy", "expected floats (2, 12)"),
        ("--init_codes={files}/nan.npy", "not finite"),
        ("--init_codes={places}", "has no codes"),
        ("--init_image=absent.jpg", "No such file"),
        ("--init_image={files}", "is a folder"),
        ("--init_image={files}/pipe", "pipe"),
        ("--init_image={files}/text", "no known image format"),
        ("--init_image={files}/bomb.png", "decompression bomb"),
        ("--init_image={files}/cut.jpg", "truncated"),
        ("--init_image={files}/cut<b>\udcff'\"\n.jpg", "<b>\\udcff\\'\"\\n.jpg"),
        ("--init_image={files}/dot.png --seeds=3", "leave --seeds alone"),
        ("--init_image=a --init_codes=b", "two starts"),
    ],
    "scene": [
        ("--scenes=abey", "did you mean abbey?"),
        ("--scenes=Abbey", "did you mean abbey?"),
        ("--scenes=99", "labels; give a label"),
        ("--scenes=-1", "an index 0..4"),
        ("--scenes=--1", "an index 0..4"),
        ("--scenes=4:2", "(a range rises: 2:4?)"),
        ("--scenes=0:99", "'0:99'"),
        ("--scenes=", "no scene named"),
        ("--scenes=abbey,,bar", "scene ''"),
    ],
    "joint": [
        ("--nsfw_weights=0.5,x", "0.5,x"),
        ("--nsfw_weights=nan", "nan"),
        ("--nsfw_weights=", "expected numbers"),
        ("--scene_weight=nan", "--scene_weight=nan"),
        ("--scene_weight=inf", "--scene_weight=inf"),
    ],
    "pareidolia": [("--alphas=x", "--alphas=x"), ("--betas=inf", "--betas=inf")],
    "synthesize": [
        ("", "no --term given"),
        ("--term=", "expected network:blob:unit"),
        ("--term=places:fc8:99:1", "'99' is not in 0..4"),
        ("--term=places:fc8:-1:1", "'-1' is not in 0..4"),
        ("--term=places:fc8:abey:1", "did you mean abbey?"),
        ("--term=places:fc9:abbey:1", "did you mean fc8 or fc6?"),
        ("--term=plces:fc8:abbey:1", "did you mean places?"),
        ("--term=places:fc8:abbey:nan", "not a finite number"),
        ("--term=places:fc8:abbey@1,2:1", "no position"),
        ("--term=places:conv2_pre:3@99,2:1", "within 8x8"),
        ("--term=places:conv2_pre:300:1", "'300' is not in 0..7"),
    ],
    "atlas": [
        ("", "no --blob given"),
        ("--network=plces --blob=conv1", "did you mean places?"),
        ("--blob=conv9", "did you mean conv2 or conv1?"),
        ("--blob=conv1 --units=9999", "an index 0..5"),
        ("--blob=conv1 --units=", "no unit named"),
        ("--blob=conv1 --position=99,0", "within 16x16"),
        ("--blob=fc6 --position=1,1", "no position"),
    ],
    "examples": [
        ("", "no --blob given"),
        ("--blob=fc8", "no --images given"),
        ("--blob=fc9 --images={files}", "did you mean fc8 or fc6?"),
        ("--blob=fc8 --images=absent", "no image can be read"),
        ("--blob=fc8 --images={files} --seeds=2", "one --model and one seed"),
    ],
    "random_samples": [
        ("--steps=3", "takes no step"),
        ("--init_image={files}/dot.png", "takes no step"),
    ],
    "compare_balances": [
        ("--scenes=abbey --balances=even", "image, code, sum, alternate"),
        ("--scenes=abbey --balances=", "--balances="),
        ("--scenes=abbey --targets=", "--targets="),
        ("--scenes=abbey --nsfw_weight=nan", "--nsfw_weight=nan"),
        ("--scenes=abbey --resume --overwrite", "give one of them"),
        ("--scenes=abbey --save_seconds=-1", "--save_seconds=-1"),
        ("--scenes=abbey --noblur_sheet", "--blur_sheet has no effect"),
        ("--scenes=abbey --num_processes=2", "--num_processes has no effect"),
        ("--scenes=abbey --balance=sum", "--balance has no effect"),
        ("--scenes=abey", "did you mean abbey?"),
    ],
    "evaluate_prior": [
        ("--figures=scens", "some of network, inversion"),
        ("--figures=", "some of network, inversion"),
        ("--figures=scenes", "--data is missing"),
        ("--figures=random --random_seeds=8:2", "--random_seeds=8:2"),
        ("--figures=random --steps=-1", "steps is -1"),
        ("--figures=random --resume --overwrite", "give one of them"),
        ("--figures=random --devices=1", "--devices has no effect"),
        ("--figures=network --data=absent", "'absent'"),
    ],
}
# What is odd, but an image: it is taken.
TAKEN = ["dot.png", "wide.png", "moving.gif", "odd<i>\udcff'\"\n.png"]


def _bytes(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_files(folder: Path) -> None:
    """Images and others that a user, or somebody who means no good, may name."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    png, jpeg = _bytes(picture, "PNG"), _bytes(picture, "JPEG")
    bomb = bytearray(png)
    bomb[16:24] = (60000).to_bytes(4, "big") * 2  # its header promises 60000 x 60000 pixels
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    contents = {
        "text": b"not a picture\n",
        "bomb.png": bytes(bomb),
        "cut.jpg": jpeg[:-200],
        "cut<b>\udcff'\"\n.jpg": jpeg[:-200],
        "odd<i>\udcff'\"\n.png": png,
        "dot.png": _bytes(picture.crop((0, 0, 1, 1)), "PNG"),
        "wide.png": _bytes(picture.resize((20_000, 3)), "PNG"),
        "moving.gif": _bytes(picture, "GIF", save_all=True, append_images=[picture.rotate(9)] * 3),
    }
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe")
    np.save(folder / "short.npy", np.zeros((2, 5), np.float32))
    np.save(folder / "nan.npy", np.full((8, 12), np.nan, np.float32))
    np.save(folder / "words.npy", np.array(["a"] * 12))
    np.save(folder / "pickle.npy", np.array([{1: 2}], dtype=object), allow_pickle=True)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Outcome of a launcher's every case, all of them run when the first is asked for."""
    folder = tmp_path_factory.mktemp("arguments")
    weights = save_tiny_networks(folder)
    names = dict(flag.removeprefix("--").split("=") for flag in weights)
    make_files(folder / "files")

    def typed(text: str) -> list[str]:
        flags = [part.format(files=folder / "files", **names) for part in text.split(" ") if part]
        return [*weights, "--out=run", *flags]

    @cache
    def run(experiment: str) -> dict[str, Outcome]:
        texts = [text for text, _ in WRONG[experiment]]
        if experiment == "nsfw":
            texts += [f"--init_image={{files}}/{name}" for name in TAKEN]
        found = run_cases(experiment, [typed(text) for text in texts], folder / experiment)
        return dict(zip(texts, found, strict=True))

    return run


@pytest.mark.parametrize(
    ("experiment", "text", "said"),
    [(name, *case) for name, cases in WRONG.items() for case in cases],
    ids=lambda value: ascii(value)[1:-1],
)
def test_a_wrong_value_is_one_line_and_nothing_written(outcomes, experiment, text, said):
    found = outcomes(experiment)[text]
    assert found.code == 2 and not found.wrote and not found.out, found
    assert found.err.startswith("error: ") and found.err.count("\n") == 1, found.err
    assert said in found.err and found.err.strip().isprintable()


@pytest.mark.parametrize("name", TAKEN, ids=ascii)
def test_odd_images_are_taken(outcomes, name):
    """They get as far as the encoder, with nothing said."""
    found = outcomes("nsfw")[f"--init_image={{files}}/{name}"]
    assert found.code is None and not found.err and not found.wrote, found
