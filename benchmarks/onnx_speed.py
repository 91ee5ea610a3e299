"""Compares the speed of an ONNX file's step with PyTorch's, channels_last, on the same network.

  python -m benchmarks.onnx_speed [--networks=resnet18,mobilenet_v2,vit] [--batch=8] [--seconds=60]

A step is the forward pass and the input gradient of the sum of the logits. Networks are
torchvision's at 224 pixels with random weights (the ViT with 6 layers of width 384), exported by
PyTorch here. Neither computes gradients of weights. Both compute in turn, at least three times and
at most 30, for so many seconds a network; gradients are compared first. It needs PyTorch:
pip install 'jaxsynth[peer]'. Run it on a machine that does nothing else.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.compare import Timing, ratio, time_in_turn
from jaxsynth import Classifier, load_onnx
from jaxsynth.environment import machine_line
from jaxsynth.models.compiled import network_jit
from jaxsynth.models.functions import prepared
from jaxsynth.report.tables import format_markdown

_SIDE, _REPEATS = 224, 30
_NETWORKS = ("resnet18", "mobilenet_v2", "vit")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", default=",".join(_NETWORKS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    names = given.networks.split(",")
    rows = [_measure(name, given.batch, given.seconds) for name in names]
    torch = _torch()[0]
    command = f"python -m benchmarks.onnx_speed --networks={given.networks} --batch={given.batch}"
    print(f"`{command}`\n\n{machine_line({'torch': torch.__version__})}\n\n{format_markdown(rows)}")


def _measure(name: str, batch: int, seconds: float) -> dict[str, str]:
    torch, net = _torch()[0], _network(name)
    x = torch.randn(batch, 3, _SIDE, _SIDE).contiguous(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / f"{name}.onnx"
        torch.onnx.export(net, (x[:1],), str(path), dynamo=False, opset_version=17)
        model = load_onnx(path, preprocess="imagenet")
    ours = _our_step(model, np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy()))
    net = net.to(memory_format=torch.channels_last).requires_grad_(False)

    def theirs() -> np.ndarray:
        given = x.detach().requires_grad_()
        net(given).sum().backward()
        return given.grad.permute(0, 2, 3, 1).numpy()

    expected = theirs()
    difference = np.linalg.norm(ours() - expected) / np.linalg.norm(expected)
    timings = time_in_turn({"ours": ours, "torch": theirs}, _REPEATS, seconds)
    return {
        "network": name,
        "batch": str(batch),
        "ours, ms": _milliseconds(timings["ours"]),
        "torch channels_last, ms": _milliseconds(timings["torch"]),
        "torch / ours": f"{ratio(timings['ours'], timings['torch']):.2f}",
        "gradients differ by": f"{difference:.0e}",
    }


def _our_step(model: Classifier, x: np.ndarray):
    params = prepared(model)

    def total(params, x):
        return jax.vmap(lambda one: model.apply(params, one)["logits"])(x).sum()

    step, x = network_jit(jax.grad(total, 1)), jnp.asarray(x)
    return lambda: np.asarray(step(params, x))


def _network(name: str):
    torch, models = _torch()
    torch.manual_seed(0)
    if name == "vit":
        net = models.VisionTransformer(_SIDE, 16, 6, 6, 384, 1536)
        torch.nn.init.normal_(net.heads.head.weight, std=0.05)  # zeros by default
    else:
        net = models.get_model(name, weights=None)
    return net.eval()


def _torch():
    import torch
    from torchvision import models

    return torch, models


def _milliseconds(timing: Timing) -> str:
    low, median, high = (1e3 * v for v in (timing.low, timing.median, timing.high))
    return f"{median:.0f} ({low:.0f} to {high:.0f})"


if __name__ == "__main__":
    main()
