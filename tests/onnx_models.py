"""Small ONNX models, computed by jaxsynth and by others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from jaxsynth.models.onnx_call import Laid, as_graph, channels_last, laid
from jaxsynth.models.onnx_file import read_onnx
from jaxsynth.models.onnx_graph import evaluate
from jaxsynth.models.onnx_wiring import wire

Arrays = Mapping[str, np.ndarray]


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[Any, Sequence[Any]]],
    outputs: Sequence[str],
    arrays: Arrays | None = None,
    opset: int = 17,
) -> Path:
    """Write a model; `inputs`: name -> (numpy type, shape)."""

    def value(name, dtype, shape):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)

    graph = helper.make_graph(
        list(nodes),
        "test",
        [value(name, np.dtype(dtype), shape) for name, (dtype, shape) in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in (arrays or {}).items()],
    )
    opsets = {"": opset} | {node.domain: 1 for node in nodes if node.domain}
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(*o) for o in opsets.items()]
    )
    model.ir_version = 8 if opset < 21 else 10
    onnx.save(model, path)
    return path


def ours(path: Path, feeds: Arrays, outputs: Sequence[str]) -> list[np.ndarray]:
    """Every output, as the graph has its axes."""
    return run_many([(path, feeds, outputs)])[0][0]


def run_many(models: Sequence[tuple[Path, Arrays, Sequence[str]]]) -> list[list[list[np.ndarray]]]:
    """Model -> layout in memory (NCHW, and NHWC where an input has four axes) -> outputs.

    All in one program, which compiles faster than many.
    """
    read = [(file := read_onnx(path), *wire(file, outputs)) for path, _, outputs in models]
    feeds = [dict(fed) for _, fed, _ in models]
    params = []
    for (_, _, arrays), fed in zip(read, feeds, strict=True):
        wide = {a.dtype for a in fed.values()} == {np.dtype("float64")}
        dtype = "float64" if wide else "float32"
        params.append({n: jnp.asarray(a, dtype) for n, a in arrays.items()})

    def compute(params, feeds):
        out = []
        for (file, wiring, _), own, fed, (_, _, names) in zip(
            read, params, feeds, models, strict=True
        ):
            rows = []
            for nhwc in (False, True)[: 1 + any(a.ndim == 4 for a in fed.values())]:
                given = {name: _lay(jnp.asarray(a), nhwc) for name, a in fed.items()}
                env = evaluate(file, wiring, own, given)
                rows.append([as_graph(env[name]) for name in names])
            out.append(rows)
        return out

    return jax.tree.map(np.asarray, jax.jit(compute)(params, feeds))


def slopes(models: Sequence[tuple[Path, Arrays, Sequence[str]]]) -> list[tuple[float, float]]:
    """Model -> slope along a random direction, by the gradient and by a central difference.

    Of a sum of all its outputs with random weights; in float64, all in one program.
    """
    step, out = 1e-6, []
    rng = np.random.default_rng(1)
    for path, feeds, outputs in models:
        file = read_onnx(path)
        wiring, arrays = wire(file, outputs)
        params = {n: jnp.asarray(a, "float64") for n, a in arrays.items()}
        way = {name: rng.normal(size=a.shape) for name, a in feeds.items()}
        seed = int(rng.integers(1000))

        def score(feeds, file=file, wiring=wiring, params=params, outputs=outputs, seed=seed):
            env = evaluate(file, wiring, params, {n: laid(a) for n, a in feeds.items()})
            made = [as_graph(env[name]) for name in outputs]
            weights = np.random.default_rng(seed)
            made = [a * weights.normal(size=a.shape) for a in made if a.dtype == jnp.float64]
            return sum((a.sum() for a in made), jnp.zeros(()))

        def both(feeds, way, score=score):
            ahead, behind = (
                {n: feeds[n] + sign * step * way[n] for n in feeds} for sign in (1, -1)
            )
            slope = (score(ahead) - score(behind)) / (2 * step)
            gradient = jax.grad(score)(feeds)
            return sum((gradient[n] * way[n]).sum() for n in way), slope

        out.append((both, jax.tree.map(jnp.asarray, dict(feeds)), way))
    compute = jax.jit(lambda given: [both(*g) for (both, _, _), g in zip(out, given, strict=True)])
    return [tuple(map(float, pair)) for pair in compute([(f, w) for _, f, w in out])]


def _lay(array, nhwc: bool) -> Laid:
    if not nhwc or array.ndim != 4:
        return laid(array)
    return Laid(array.transpose(0, 2, 3, 1), channels_last(4))


def theirs(path: Path, feeds: Arrays) -> list[np.ndarray]:
    """By onnxruntime, unoptimised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def reference(path: Path, feeds: Arrays) -> list[np.ndarray]:
    """By onnx's own implementation in numpy."""
    return ReferenceEvaluator(str(path)).run(None, dict(feeds))
