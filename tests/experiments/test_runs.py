"""Finding a run folder again, and what may be changed of it."""

import dataclasses
import json

import pytest

from experiments.evaluation.checkpoint import LONGEST_NAME, evaluation_file
from experiments.evaluation.config import EvaluationConfig
from experiments.runs import Context, override_run, read_context, read_run
from models.config import LayerConfig
from models.errors import InvalidInput
from models.positions.scaling.yarn import YaRN
from tests.system.tiny import run_config
from train.config import RunConfig
from train.configuration import to_plain
from train.files import write_json

EVALUATION = EvaluationConfig(lengths=(16, 32))


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "study" / "runs" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(to_plain(run_config(tmp_path), RunConfig)))
    points = [{"run_id": "abc", "label": "the rope one", "evaluation": to_plain(EVALUATION)}]
    points += [{"run_id": "def", "label": "another", "evaluation": to_plain(EvaluationConfig(lengths=(8,)))}]
    (tmp_path / "study" / "study.json").write_text(json.dumps({"points": points}))
    return folder


def test_a_run_and_its_study_are_read_back(run, tmp_path):
    assert read_run(run) == run_config(tmp_path)
    assert read_context(run, read_run(run)) == Context("the rope one", EVALUATION)


def test_a_run_without_a_study_has_defaults(run):
    (run.parent.parent / "study.json").unlink()
    assert read_context(run, read_run(run)) == Context("rope", EvaluationConfig())


def test_a_run_whose_study_is_damaged_or_does_not_list_it_is_not_given_defaults(run):
    path = run.parent.parent / "study.json"
    manifest = json.loads(path.read_text())
    for content, words in (
        (json.dumps(manifest)[:20], r"study\.json cannot be read as JSON: "),
        (json.dumps(manifest | {"points": []}), r"study\.json does not list the run abc, so how "),
        (
            json.dumps({"points": [{"run_id": "abc", "label": "the rope one"}]}),
            r"study\.json does not say how the run abc is evaluated; once it is removed, the command that trains ",
        ),
    ):
        path.write_text(content)
        with pytest.raises(InvalidInput, match=words) as caught:
            read_context(run, read_run(run))
        assert "\n" not in str(caught.value)


def test_what_is_no_run_folder_is_refused(run, tmp_path):
    study = tmp_path / "study"
    with pytest.raises(InvalidInput, match=r"is not a run folder.*is a study, with the runs runs/abc$"):
        read_run(study)
    with pytest.raises(InvalidInput, match=r"is not a run folder: it holds no config\.json$"):
        read_run(tmp_path / "nowhere")
    (run / "config.json").write_text('{"seed": ')
    with pytest.raises(InvalidInput, match=r"config\.json is damaged: it is not JSON"):
        read_run(run)


def test_the_model_and_the_evaluation_may_be_overridden_and_nothing_else(run):
    trained = read_run(run)
    context = read_context(run, trained)
    under = override_run(
        trained, context, {"model.position.scaling.name": "yarn", "model.position.scaling.factor": "2.0"}
    )
    assert under.model.position.scaling == YaRN(factor=2.0) and under.evaluation == EVALUATION
    assert under.changes == {"model.position.scaling.name": "yarn", "model.position.scaling.factor": 2.0}
    assert override_run(trained, context, {}).changes == {}
    with pytest.raises(InvalidInput, match=r"config\.train\.steps cannot be overridden here"):
        override_run(trained, context, {"train.steps": "5"})


STATED = {
    "position": {"name": "rope", "scaling": {"name": "none"}},
    "span": {"name": "full"},
    "temperature": {"name": "none"},
    "mixer": {"name": "softmax"},
    "experts": {"name": "none"},
}


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("position", "position.scaling.name", "yarn"),
        ("position", "position.name", "alibi"),
        ("span", "span.name", "sliding"),
        ("temperature", "temperature.name", "drope"),
        ("mixer", "mixer.query_key_norm", "rms"),
        ("experts", "experts.name", "token_choice"),
    ],
)
def test_a_change_that_no_layer_would_take_is_refused(run, name, path, value):
    assert set(STATED) == {field.name for field in dataclasses.fields(LayerConfig)}
    trained = read_run(run)
    context = read_context(run, trained)
    change, before = {f"model.{path}": value}, override_run(trained, context, {}).model
    wanted = rf"^config\.model\.{path} would change nothing: model\.pattern states {name} for every layer, so config\."
    everywhere = {"model.pattern": [{name: STATED[name]}, STATED]}
    with pytest.raises(InvalidInput, match=wanted) as caught:
        override_run(trained, context, everywhere | change)
    assert "\n" not in str(caught.value)
    # One layer that leaves it open takes it; what stays as it was is no change.
    somewhere = override_run(trained, context, {"model.pattern": [STATED, {}]} | change).model
    layer = getattr(somewhere, f"layer_{name}")
    assert layer(1) == getattr(somewhere, name) != layer(0) == getattr(before, name)
    assert override_run(trained, context, everywhere).model.pattern[1] == somewhere.pattern[0]


def test_every_label_makes_a_file_name_of_its_own(tmp_path):
    assert evaluation_file(tmp_path, "RoPE · ntk") == tmp_path / "evaluation" / "rope-ntk.json"
    long = [evaluation_file(tmp_path, "x" * 300 + tail).name for tail in "ab"]
    assert long[0] != long[1] and max(map(len, long)) < LONGEST_NAME + 20
    alike = ["a b", "a_b", "a.b", "A b", "a · b"]
    for label in alike:
        write_json(evaluation_file(tmp_path, label), {"series": label})
    assert evaluation_file(tmp_path, "a b").name == "a-b.json"
    assert [json.loads(evaluation_file(tmp_path, label).read_text())["series"] for label in alike] == alike
    odd = [evaluation_file(tmp_path, label).name for label in ("…", "语", "β 0.1", "γ 0.1", "bias 1", "bias -1")]
    assert odd[0] != odd[1] and min(map(len, odd)) > len(".json")
