import numpy as np
import pytest

from models.errors import InvalidInput
from models.positions import frequencies_from_hugging_face
from models.positions.scaling.rule import plain_frequencies


def test_a_partial_rotary_factor_shortens_the_width():
    parameters = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.25}
    frequencies, attention_factor = frequencies_from_hugging_face(parameters, 64, 2048)
    np.testing.assert_array_equal(frequencies, plain_frequencies(500.0, 16))
    assert attention_factor == 1.0


def test_one_weight_of_the_pair_is_ignored_as_hugging_face_does():
    parameters = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    plain = frequencies_from_hugging_face(parameters, 64, 2048)
    weighted = frequencies_from_hugging_face({**parameters, "mscale": 0.7}, 64, 2048)
    assert weighted[1] == plain[1]


def test_unknown_types_and_missing_parameters_are_refused():
    with pytest.raises(InvalidInput, match=r"^rope_type = 'su' is not allowed; .* default, linear, dynamic, yarn$"):
        frequencies_from_hugging_face({"rope_type": "su", "rope_theta": 1e4}, 64, 2048)
    with pytest.raises(InvalidInput, match=r"^rope_parameters of rope_type 'linear' have no 'factor'$"):
        frequencies_from_hugging_face({"rope_type": "linear", "rope_theta": 1e4}, 64, 2048)
