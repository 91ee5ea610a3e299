"""Terms: text -> units, and units -> weights."""

import numpy as np
import pytest
from tiny import LABELS, tiny_networks

from jaxsynth.terms import (
    Term,
    choose_units,
    parse_term,
    system_shapes,
    term_activation,
)

NETWORKS = tiny_networks()
SHAPES = system_shapes(NETWORKS)


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
    term = parse_term(text, NETWORKS, SHAPES)
    assert (term.index, term.weight) == (index, weight)


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
    ],
)
def test_wrong_terms_say_what_is_right(text, said):
    with pytest.raises(ValueError) as error:
        parse_term(text, NETWORKS, SHAPES)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_units_by_label_glob_index_and_all():
    assert choose_units(["canyon", "*a*", "0"], LABELS) == [2, 0, 1, 3, 4]
    assert choose_units(["all"], LABELS) == [0, 1, 2, 3, 4]
    for wrong in ("canion", "5", "-1", "z*", ""):
        with pytest.raises(ValueError, match="none of the 5 labels"):
            choose_units([wrong], LABELS)


def test_activations_of_terms():
    a, b = Term("places", "conv2", (1, 2, 3), 2.0), Term("places", "conv2", (0, 0, 1), -1.0)
    c = Term("places", "fc8", (4,), 0.5)
    watched = {"places": {"conv2": np.array([7.0, 8.0, 7.0]), "fc8": np.arange(5.0)}}
    assert term_activation(a, [a, b, a], watched) == 7  # recorded in the order of the terms
    assert term_activation(b, [a, b, a], watched) == 8
    assert term_activation(c, [c], watched) == 4  # recorded whole
