"""torchvision's networks, few blocks wide, exported by PyTorch: values and input gradients.

They need PyTorch and torchvision: `pip install torch torchvision onnxscript`.
"""

import functools
import warnings

import jax
import numpy as np
import pytest

import jaxsynth as js

WHY = "PyTorch is not installed: pip install torch torchvision onnxscript"
torch = pytest.importorskip("torch", reason=WHY)
models = pytest.importorskip("torchvision", reason=WHY).models
CLASSES = 7


def vgg():
    layers = models.vgg.make_layers([8, "M", 16, "M", 16, 16, "M"], batch_norm=True)
    net = models.VGG(layers, num_classes=CLASSES, init_weights=False)
    net.avgpool = torch.nn.AdaptiveAvgPool2d((4, 4))  # from 8, as the exporter wants factors
    net.classifier = torch.nn.Sequential(
        torch.nn.Linear(16 * 16, 32), torch.nn.ReLU(True), torch.nn.Linear(32, CLASSES)
    )
    return net


def mobilenet_v3():
    setting = functools.partial(models.mobilenetv3.InvertedResidualConfig, width_mult=1.0)
    rows = [(8, 3, 16, 8, True, "RE", 2, 1), (8, 5, 24, 16, True, "HS", 2, 1)]
    return models.MobileNetV3([setting(*row) for row in rows], 32, num_classes=CLASSES)


def vit():
    net = models.VisionTransformer(64, 16, 2, 4, 32, 64, num_classes=CLASSES)
    torch.nn.init.normal_(net.heads.head.weight)  # zeros by default
    return net


def efficientnet():
    setting = functools.partial(models.efficientnet.MBConvConfig, width_mult=1, depth_mult=1)
    rows = [(1, 3, 1, 32, 16, 1), (4, 5, 2, 16, 24, 2)]
    return models.EfficientNet([setting(*row) for row in rows], 0.2, num_classes=CLASSES)


def convnext():
    block = models.convnext.CNBlockConfig
    rows = [block(16, 32, 1), block(32, None, 1)]
    return models.ConvNeXt(rows, layer_scale=1.0, num_classes=CLASSES)  # 1e-6 hides the blocks


def regnet():
    params = models.regnet.BlockParams([1, 2], [16, 32], [8, 8], [1, 1], [2, 2], se_ratio=0.25)
    return models.RegNet(params, num_classes=CLASSES, stem_width=16)


NETWORKS = {
    "resnet18": lambda: models.resnet.ResNet(models.resnet.BasicBlock, [2, 2, 2, 2], CLASSES),
    "vgg11_bn": vgg,
    "mobilenet_v2": lambda: models.MobileNetV2(
        CLASSES, 0.5, [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]]
    ),
    "mobilenet_v3": mobilenet_v3,
    "efficientnet_b0": efficientnet,
    "densenet121": lambda: models.DenseNet(8, (2, 2, 2), 16, num_classes=CLASSES),
    "shufflenet_v2": lambda: models.ShuffleNetV2([2, 2, 2], [16, 24, 48, 96, 64], CLASSES),
    "googlenet": lambda: models.GoogLeNet(CLASSES, aux_logits=False, init_weights=False),
    "squeezenet": lambda: models.SqueezeNet("1_1", CLASSES),
    "vit": vit,
    "convnext": convnext,
    "swin": lambda: models.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=CLASSES),
    "regnet": regnet,
}


def export(net, x, path, dynamo=False):
    """Write an ONNX file; the batch is open where the exporter is the old one."""
    how = {"input_names": ["image"], "output_names": ["scores"], "dynamo": dynamo}
    if not dynamo:
        how |= {"dynamic_axes": {"image": {0: "n"}}, "opset_version": 17}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), str(path), **how)
    return path


# Two networks show what the newer exporter writes.
CASES = [*((name, False) for name in NETWORKS), ("resnet18", True), ("swin", True)]


@pytest.mark.parametrize(("name", "dynamo"), CASES)
def test_values_and_input_gradients_equal_pytorchs(name, dynamo, tmp_path):
    torch.manual_seed(0)
    net = NETWORKS[name]().eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    x = torch.randn(1, 3, 64, 64)
    model = js.load_onnx(export(net, x, tmp_path / "m.onnx", dynamo), preprocess="imagenet")
    given = x.clone().requires_grad_()
    logits = net(given)[0]
    weights = np.random.default_rng(0).normal(size=CLASSES).astype(np.float32)
    (logits * torch.tensor(weights)).sum().backward()

    def score(x):
        made = model.apply(model.params, x)["logits"]
        return made @ weights, made

    image = x[0].permute(1, 2, 0).numpy()
    gradient, made = jax.jit(jax.grad(score, has_aux=True))(image)
    scale = float(logits.detach().abs().max())
    assert scale > 0
    np.testing.assert_allclose(made, logits.detach(), rtol=1e-4, atol=1e-4 * scale)
    expected = given.grad[0].permute(1, 2, 0).numpy()
    assert np.linalg.norm(expected) > 0
    assert np.linalg.norm(gradient - expected) <= 1e-3 * np.linalg.norm(expected)
