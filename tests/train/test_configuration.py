"""Opening dataclasses for editing and closing them again."""

import copy
import dataclasses
import json
from dataclasses import dataclass, field
from typing import ClassVar

import ml_collections
import pytest

from experiments.config import StudyConfig
from models.attention.visibility import And, Chunked, GlobalTokens, Or, Sliding
from models.config import LayerConfig, ModelConfig
from models.errors import InvalidInput, require
from models.positions.alibi import ALiBi
from models.positions.none import NoPosition
from models.positions.rotary import Rotary
from models.positions.scaling.yarn import YaRN
from models.registry import Registry
from train.configuration import default_config_dict, from_config_dict, to_config_dict, to_plain
from train.schedules import Linear


@dataclass(frozen=True)
class Shape:
    registry: ClassVar[Registry] = Registry("shape.name")
    name: ClassVar[str]


@Shape.registry.register("circle")
@dataclass(frozen=True)
class Circle(Shape):
    radius: float = 1.0


@Shape.registry.register("polygon")
@dataclass(frozen=True)
class Polygon(Shape):
    corners: tuple[int, ...]
    label: str | None = None

    def __post_init__(self):
        require(len(self.corners) > 2, "corners", self.corners, "three or more")


@dataclass(frozen=True)
class Drawing:
    shape: Shape = field(default_factory=Circle)
    behind: tuple[Shape, ...] = ()
    filled: bool = False
    count: int = 1


def test_a_study_comes_back_as_it_was():
    pattern = (LayerConfig(), LayerConfig(position=NoPosition()))
    model = ModelConfig(layers=2, position=Rotary(scaling=YaRN(factor=2.0)), pattern=pattern)
    model = model.replace(span=Or((And((Sliding(8), Chunked(32))), GlobalTokens(2))))
    study = StudyConfig(seed=3, model=model)
    assert from_config_dict(StudyConfig, to_config_dict(study)) == study
    # And through the text of a run folder's config.json.
    assert from_config_dict(StudyConfig, json.loads(json.dumps(to_plain(study)))) == study


def test_a_plain_form_may_leave_out_what_a_subclass_adds():
    plain = to_plain(Polygon((1, 2, 3)), Shape)
    assert plain == {}
    assert to_plain(Polygon((1, 2, 3))) == {"name": "polygon", "corners": [1, 2, 3], "label": None}


def test_defaults_are_opened_without_an_instance():
    assert default_config_dict(Polygon).to_dict() == {"name": "polygon", "label": None}
    assert default_config_dict(Drawing) == to_config_dict(Drawing())


def test_missing_fields_take_their_defaults_and_whole_numbers_are_floats():
    assert from_config_dict(Drawing, {}) == Drawing()
    closed = from_config_dict(Drawing, {"shape": {"name": "circle", "radius": 2}})
    assert closed.shape == Circle(2.0) and isinstance(closed.shape.radius, float)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"colour": 1}, "config.colour is unknown; config has the fields shape, behind, filled, count"),
        ({"shape": {"radius": 1.0}}, "config.shape.name = None is not allowed; it must be one of circle, polygon"),
        ({"shape": {"name": "line"}}, "config.shape.name = 'line' is not allowed; it must be one of circle, polygon"),
        (
            {"shape": "circle"},
            "config.shape = 'circle' is not allowed; it must be a dictionary of fields; config.shape.",
        ),
        ({"shape": {"name": "polygon"}}, "config.shape.corners is missing; it has no default"),
        (
            {"shape": {"name": "polygon", "corners": (1, 2)}},
            "config.shape.corners = (1, 2) is not allowed; it must be thr",
        ),
        ({"shape": {"name": "polygon", "corners": 3}}, "config.shape.corners = 3 is not allowed; it must be a list"),
        ({"shape": {"name": "polygon", "corners": (1, 2, 3), "label": 4}}, "config.shape.label = 4 is not allowed; it"),
        (
            {"behind": [{"name": "circle", "radius": "x"}]},
            "config.behind[0].radius = 'x' is not allowed; it must be of",
        ),
        ({"filled": 1}, "config.filled = 1 is not allowed; it must be of type bool"),
        ({"count": True}, "config.count = True is not allowed; it must be of type int"),
        ({"count": None}, "config.count = None is not allowed; it must be a value of type int"),
        ({"count": 2.0}, "config.count = 2.0 is not allowed; it must be of type int"),
    ],
)
def test_refusals_name_the_whole_path(values, words):
    for opened in (values, ml_collections.ConfigDict(values)):
        with pytest.raises(InvalidInput) as caught:
            from_config_dict(Drawing, opened)
        assert str(caught.value).startswith(words)


def test_opened_configurations_can_be_changed_without_changing_the_original():
    study = StudyConfig()
    opened = to_config_dict(study)
    opened.model.layers = 7
    assert study.model.layers == 4
    assert from_config_dict(StudyConfig, opened).model == dataclasses.replace(study.model, layers=7)


def test_another_name_brings_the_fields_of_its_alternative():
    config = copy.deepcopy(to_config_dict(StudyConfig()))  # as a sweep copies what get_config gave
    config.model.position.base = 500_000.0
    config.model.position.name = "alibi"
    config.schedule.warmup = 7
    config.schedule.name = "linear"
    closed = from_config_dict(StudyConfig, config)
    assert closed.model.position == ALiBi()
    assert closed.schedule == Linear(warmup=7)  # whose end is another than that of the schedule before
    config.model.position.name = "rope"
    assert from_config_dict(StudyConfig, config).model.position == Rotary()
    config.model.position.name = "aliby"
    with pytest.raises(InvalidInput, match=r"config\.model\.position\.name = 'aliby' is not allowed"):
        from_config_dict(StudyConfig, config)
