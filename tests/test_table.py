"""What the table and captions say of runs, from recorded activations alone."""

import dataclasses

import numpy as np
import pytest
from tiny import tiny_models

from jaxsynth import objectives
from jaxsynth.ascent import ChunkResult, Evaluation
from jaxsynth.objectives import Objective
from jaxsynth.report.tables import format_probability
from jaxsynth.results import Run
from jaxsynth.table import captions, row_of, score_lines, scores, sensitive_of, term_value

_, PLACES, NSFW = tiny_models().values()
P = np.array([0.1, 0.6, 0.2, 0.1 - 1e-10, 1e-10])


def looks(nsfw: float = 0.25, **more) -> dict:
    seen = {"prob": P, "log_prob": np.log(P), "fc8": np.arange(5.0)}
    return {"places": seen | more, "nsfw": {"prob": np.array([1 - nsfw, nsfw])}}


def finished(objective: np.ndarray, watched: dict, **changes) -> ChunkResult:
    """One run."""
    last = {r: {b: v[-1:] for b, v in blobs.items()} for r, blobs in watched.items()}
    seen = Evaluation(objective[-1:], last, np.zeros((1, 4, 4, 3)))
    codes = np.zeros((1, 3))
    fields = {
        "start_codes": codes, "codes": codes, "best_codes": codes, "last": seen,
        "recorded_codes": codes[:, None],
        "objective": objective[None],
        "watched": {r: {b: v[None] for b, v in blobs.items()} for r, blobs in watched.items()},
        "best": seen, "ended": np.array([-1]), "sound": np.array([True]),
    }  # fmt: skip
    return ChunkResult(**fields | changes)


def test_captions_say_terms_first_then_what_is_sensitive_then_the_likeliest():
    goal = PLACES.log_prob("estuary") + 0.5 * NSFW.log_odds("NSFW") + PLACES.unit("conv2", 3)
    row = scores(goal, [NSFW, PLACES], {"last": looks(conv2=np.array([1.5]))})
    assert row["target_1"] == "places:log_prob:estuary" and row["weight_2"] == 0.5
    assert row["p_1_last"] == 1e-10 and row["activation_3_last"] == 1.5
    assert row["nsfw_last"] == 0.25 and (row["top_places"], row["p_top_places"]) == ("bar", 0.6)
    lines = score_lines(goal, row, [NSFW, PLACES])
    assert lines == ("estuary 1e-10", "NSFW 0.250", "conv2:3 1.5")
    nothing = Objective(())
    lines = score_lines(nothing, scores(nothing, [NSFW, PLACES], {"last": looks()}), [NSFW, PLACES])
    assert lines == ("NSFW 0.250", "bar 0.60")
    run = Run(3, goal, "estuary", "NSFW x 0.5")
    assert captions(run, row, [NSFW, PLACES])[0] == "seed 3"
    assert captions(Run(3, goal, "", "seed 3"), row, [NSFW, PLACES])[0] == "estuary 1e-10"
    continued = Run(3, goal, origin="out/first:12")
    assert captions(continued, row, [NSFW, PLACES])[0] == "run 12"
    repeated = captions(run, row | {"equals": 0, "best_step": 7}, [NSFW, PLACES], "best")
    assert repeated[:2] == ("seed 3, best, step 7", "equals run 0")  # short enough for a tile


def test_of_many_classes_the_target_is_told_beside_the_sensitive_ones():
    judge = dataclasses.replace(PLACES, sensitive=(1, 3))
    row = {"p_1_last": 0.6, "places_last": 0.25}
    lines = score_lines(PLACES.log_prob("canyon"), row, [judge])
    assert lines == ("canyon 0.60", "bar + dam 0.250")
    assert score_lines(PLACES.log_prob("bar"), row, [judge]) == ("bar + dam 0.250",)


def test_the_most_sensitive_class_counts_also_without_the_models():
    row = {"nsfw_last": 0.3, "gore_last": 0.7, "objective_last": 9.0, "p_1_last": 0.99}
    gore = NSFW.named("gore")
    assert sensitive_of(row, [NSFW]) == 0.3 and sensitive_of(row, [NSFW, gore]) == 0.7
    assert sensitive_of(row, [PLACES]) is None and sensitive_of(row, []) == 0.7
    assert sensitive_of(row, [NSFW], "best") is None


def test_every_term_finds_its_own_value():
    vector = np.arange(12.0)
    goal = (
        PLACES.unit("fc6", 4) + PLACES.match("fc6", vector) + PLACES.direction("fc6", vector)
        + PLACES.layer("conv1") + objectives.total_variation()
        + objectives.function(lambda acts: acts.image.mean()) + PLACES.direction("fc8", np.ones(5))
        + objectives.function(lambda acts: acts.image.max())
    )  # fmt: skip
    watched = looks(**{
        "fc6": np.array([1.0, 2.0]), "match:fc6": np.array([3.0]), "square:conv1": np.array([4.0]),
    })  # fmt: skip
    watched["generator"] = {"image_tv": np.array([5.0]), "function:<lambda>": np.array([6.0, 7.0])}
    values = [term_value(goal.terms, i, watched) for i in range(len(goal.terms))]
    assert values == [1, 3, 2, 4, 5, 6, 10, 7]
    assert goal.terms[0].name == "places:fc6:4" and goal.terms[5].name == ("function:<lambda>")
    del watched["generator"]  # a photograph
    assert term_value(goal.terms, 4, watched) is None


@pytest.mark.parametrize(("changes", "said"), [
    ({}, "ok"),
    ({"ended": np.array([2])}, "zero gradient at step 2"),
    ({"ended": np.array([2]), "sound": np.array([False])}, "non-finite at step 2, frozen before"),
])  # fmt: skip
def test_the_status_says_how_a_run_ended(changes, said):
    watched = {"places": {"prob": np.tile(P, (3, 1)), "fc8": np.ones((3, 5))}}
    row = row_of(Run(0, PLACES.logit(2)), 7, 0, finished(np.ones(3), watched, **changes), [PLACES])
    assert row["status"].startswith(said) and row["run"] == 7


def test_a_silent_unit_is_named_with_the_blob_before_its_relu():
    watched = {"places": {"prob": np.tile(P, (3, 1)), "conv2": np.zeros((3, 1))}}
    run = Run(0, PLACES.unit("conv2", 3))
    row = row_of(run, 0, 0, finished(np.zeros(3), watched), [PLACES])
    assert row["status"] == "places:conv2:3 stayed 0: maximise conv2_pre, before its ReLU"


def test_a_small_probability_is_told_from_none():
    texts = [format_probability(p) for p in (0.0, 1e-10, 0.00049, 0.0005, 0.1234, 0.99999)]
    assert texts == ["0", "1e-10", "5e-04", "0.001", "0.123", "1.000"]
    assert format_probability(0.12345, 4) == "0.1235" and format_probability(0.004, 2) == "4e-03"
