"""Objectives: their algebra, their constructors, text to terms and back."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import LABELS, tiny_networks

from jaxsynth import objectives
from jaxsynth.inputs import check_options, choose_units, option
from jaxsynth.models.network import activation_shapes
from jaxsynth.objective_text import parse
from jaxsynth.objectives import Targets, as_objective, distance_to_start, diversity


class Model(Targets):
    """What objectives need to know of a classifier."""

    def __init__(self, role, shapes, labels, logits="fc8"):
        self.role, self.shapes, self.labels, self.logits = role, shapes, labels, logits


class Maker(Targets):
    """What they need to know of a generator."""

    role = objectives.GENERATOR

    def __init__(self, shapes):
        self.shapes = shapes


NETWORKS = tiny_networks()
SHAPES = {role: activation_shapes(network.info.config) for role, network in NETWORKS.items()}
PLACES = Model("places", SHAPES["places"], LABELS)
NSFW = Model("nsfw", SHAPES["nsfw"], ("SFW", "NSFW"))
GENERATOR = Maker(SHAPES["generator"])
MODELS = {"places": PLACES, "nsfw": NSFW, "generator": GENERATOR}


def _shape(term):
    return (1,) if term.model is None else term.model.shapes[term.blob]


@pytest.mark.parametrize(
    ("text", "index", "weight"),
    [
        ("places:fc8:canyon:1", (2,), 1.0),
        ("places:prob:4:-0.5", (4,), -0.5),
        ("nsfw:log_odds:SFW:1e-3", (0,), 1e-3),
        ("places:conv2:7@3,5:2", (3, 5, 7), 2.0),
        ("places:conv2:7:2", (4, 4, 7), 2.0),  # the centre of 8x8
        ("generator:feat:11:1", (11,), 1.0),
        ("generator:image_tv:0:-1", (0,), -1.0),
        ("generator:deconv0:2@15,0:1", (15, 0, 2), 1.0),
    ],
)
def test_terms_are_read(text, index, weight):
    [term] = parse(text, MODELS).terms
    assert np.unravel_index(term.index[0], _shape(term)) == index
    assert (term.weight, term.value.tolist(), term.how) == (weight, [1.0], "linear")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("place:fc8:canyon:1", "did you mean places"),
        ("places:fc9:canyon:1", "did you mean fc8"),
        ("places:fc8:canion:1", "did you mean canyon"),
        ("places:fc8:canyon:one", "'one' is not a finite number"),
        ("places:fc8:canyon:nan", "'nan' is not a finite number"),
        ("places:fc8:canyon:1e39", "'1e39' is not a finite number in float32"),
        ("places:fc8:canyon", "expected network:blob:unit"),
        ("places:fc6:canyon:1", "unit 'canyon' is not in 0..11"),
        ("places:conv2:7@8,0:1", "'8,0' is not y,x within 8x8"),
        ("places:conv2:7@1:1", "'1' is not y,x"),
        ("places:conv2:8@1,1:1", "unit '8' is not in 0..7"),
        ("places:fc8:1@2,2:1", "has no position"),
        ("places:fc8:-1:1", "'-1' is not in 0..4"),
        ("places:fc8:1:1 + places:fc9:1:1", "did you mean fc8"),
        ("places:fc6:3:mean:1", "has no positions to average"),
        ("places:fc6:@none.npy:1", "none.npy is no array of numbers: No such file"),
        ("places:fc6:3:match:1", "expected @FILE.npy:match"),
        ("places:fc6:3:square:1", "expected *:square"),
        ("function:mine:1.0", "is a Python function"),
        ("generator:image_vt:0:1", "did you mean image_tv"),
    ],
)
def test_wrong_terms_say_what_is_right(text, said):
    with pytest.raises(ValueError) as error:
        parse(text, MODELS)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_units_by_label_glob_index_and_all():
    assert choose_units(["canyon", "*a*", "0"], LABELS) == [2, 0, 1, 3, 4]
    assert choose_units(["all"], LABELS) == [0, 1, 2, 3, 4]
    for wrong in ("canion", "5", "-1", "z*", ""):
        with pytest.raises(ValueError, match="none of the 5 labels"):
            choose_units([wrong], LABELS)


def test_objectives_are_added_scaled_and_printed():
    both = PLACES.log_prob("bar") + 0.5 * NSFW.log_odds("NSFW") - 0.1 * objectives.code_l2()
    assert str(both) == (
        "places:log_prob:bar:1.0 + nsfw:log_odds:NSFW:0.5 + generator:code_l2:0:-0.1"
    )
    assert both.models() == (PLACES, NSFW)
    assert parse(str(both), MODELS) == both and hash(parse(str(both), MODELS)) == hash(both)
    assert str(-PLACES.logit(0) / 2) == "places:fc8:abbey:-0.5"
    assert sum([PLACES.logit(0), PLACES.logit(0)]) == as_objective([PLACES.logit(0)] * 2)
    assert np.float64(2) * PLACES.logit(0) == PLACES.logit("abbey") * 2
    assert PLACES.logit(0) != PLACES.logit(1) != 3
    with pytest.raises(ValueError, match="1 is no objective"):
        PLACES.logit(0) + 1
    with pytest.raises(ValueError, match="not a finite number"):
        PLACES.logit(0) * np.nan
    for nothing in ((), "places", 3):
        with pytest.raises(ValueError, match="is no objective"):
            as_objective(nothing)


def test_terms_say_their_class_and_caption():
    def term(objective):
        return objective.terms[0]

    assert (term(PLACES.prob("dam")).unit, term(PLACES.prob(3)).label) == (3, "dam")
    assert term(PLACES.unit("fc6", 3)).unit is None
    assert str(PLACES.unit("conv2", 7, at=(3, 5))) == "places:conv2:7@3,5:1.0"
    assert term(PLACES.unit("conv2", 7, at=(3, 5))).label == "7@3,5"
    assert term(PLACES.unit("conv2", 7)).label == "7"  # the centre
    assert term(distance_to_start()).network == "generator"


def test_channels_and_directions_weigh_places():
    [mean] = PLACES.channel("conv2", 5).terms
    rows, columns, channels = np.unravel_index(mean.index, (8, 8, 8))
    assert mean.value.sum() == 1.0 and len(set(zip(rows, columns, strict=True))) == 64
    assert set(channels) == {5}
    vector = np.arange(8.0)
    [averaged] = PLACES.direction("conv2", vector).terms
    assert len(averaged.index) == 7 * 64  # a weight of 0 is left out
    np.testing.assert_allclose(averaged.value.sum(), vector.sum())
    [placed] = PLACES.direction("conv2", vector, at=(1, 2)).terms
    assert (
        placed.index.tolist()
        == np.ravel_multi_index(([1] * 7, [2] * 7, range(1, 8)), (8,) * 3).tolist()
    )
    [dense] = PLACES.direction("fc6", np.ones(12)).terms
    assert dense.index.tolist() == list(range(12))
    with pytest.raises(ValueError, match="has 3 numbers, expected 512 or 8"):
        PLACES.direction("conv2", np.ones(3))
    with pytest.raises(ValueError, match="not finite"):
        PLACES.match("fc6", np.full(12, np.nan))


def test_arrays_are_saved_and_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vector = np.linspace(-1, 1, 8)
    given = (
        PLACES.direction("conv2", vector)
        + PLACES.direction("conv2", vector, at=(1, 2))
        + PLACES.match("fc6", np.arange(12), cosine=True)
    )
    for name, array in given.arrays().items():
        np.save(name, array)
    again = parse(str(given), MODELS)
    for old, new in zip(given.terms, again.terms, strict=True):
        np.testing.assert_array_equal(old.index, new.index)
        np.testing.assert_array_equal(old.value, new.value)
    assert again.terms == given.terms and len(given.arrays()) == 2


def test_functions_read_classifiers_and_have_no_text():
    def mine(acts):
        return acts["places"]["fc6"].sum()

    objective = as_objective(mine) - diversity(NSFW, "conv1")
    assert str(objective) == "function:mine:1.0 + nsfw:conv1:*:diversity:-1.0"
    assert objective.terms[0].function is mine
    assert objectives.function(mine, [PLACES]).models() == (PLACES,)
    assert as_objective(mine) == as_objective(mine) != as_objective(lambda acts: 0.0)


def test_models_without_classes_have_no_logits():
    reader = Model("encoder", SHAPES["places"], (), None)
    assert reader.unit("fc8", 3).terms[0].unit is None
    for model in (GENERATOR, reader):
        with pytest.raises(ValueError, match="has no classes"):
            model.logit(0)


def test_layer_units_are_before_their_relu():
    shapes = SHAPES["places"] | {"conv2_pre": SHAPES["places"]["conv2"]}
    model = Model("places", shapes, LABELS)
    units = objectives.layer_units(model, "conv2", ["0:2", "5"], "1,2")
    assert [str(o) for o in units] == [f"places:conv2_pre:{u}@1,2:1.0" for u in (0, 1, 5)]
    assert [o.terms[0].label for o in objectives.layer_units(PLACES, "fc8")] == list(LABELS)


_WORDS = st.text(st.sampled_from("a:@ 1,*+.-é"), min_size=1, max_size=6)
_WORDS |= st.sampled_from(["mean", "a:mean", "*:square", "@x.npy", "3", "places:fc8:1:1", "a + b"])


@given(
    st.lists(_WORDS, min_size=5, max_size=5),
    st.lists(
        st.tuples(
            st.sampled_from(["fc8", "log_prob", "conv2", "fc6", "channel", "layer", "tv", "start"]),
            st.integers(0, 4),
            st.floats(-1e30, 1e30),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_text_gives_the_same_objective_back(labels, chosen):
    model = Model("places", SHAPES["places"], tuple(labels))
    models = MODELS | {"places": model}
    made = {
        "channel": lambda n: model.channel("conv2", n),
        "layer": lambda n: model.layer("conv2") + diversity(model, "fc6"),
        "tv": lambda n: objectives.total_variation() - objectives.image_l2(),
        "start": lambda n: distance_to_start("image") + distance_to_start(),
    }
    objective = sum(
        made.get(blob, lambda n, blob=blob: model.unit(blob, n))(number) * weight
        for blob, number, weight in chosen
    )
    again = parse(str(objective), models)
    assert again == objective and str(again) == str(objective)


def test_options_are_checked_by_their_metadata():
    @dataclasses.dataclass(frozen=True)
    class Made:
        steps: int = option(3, "Steps.", low=0)
        rate: float = option(1.0, "Rate.", above=0, high=2)
        kind: str = option("a", "Kind.", among=("a", "b"), expected="'a' or 'b'")
        other: int = 0

    check_options(Made(), "made")
    for wrong, said in [
        ({"steps": -1}, "made: steps is -1, expected a whole number from 0 up"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"rate": 0.0}, "rate is 0.0, expected a finite number above 0, at most 2"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"kind": "c"}, "kind is 'c', expected 'a' or 'b'"),
    ]:
        with pytest.raises(ValueError, match=said):
            check_options(Made(**wrong), "made")
