"""The sentences at the top of the page, against numbers chosen so that the right words are known."""

import json

from experiments.report.answer import answer
from experiments.report.comparison import comparison_notes
from experiments.report.context import context_figure, position_figure
from experiments.report.extrapolation import length_figure
from experiments.report.series import collect_series, length_curve, row_notes
from experiments.report.study import read_study
from tests.experiments.report.synthetic import equal_bytes, evaluation, write_run, write_study


def rows(plain: dict, sliding: dict | None = None) -> list[dict]:
    """Rows of bits per byte by length, non-overlapping and sliding."""
    entries = [("non_overlapping", length, value) for length, value in plain.items()]
    entries += [("sliding", length, value) for length, value in (sliding or {}).items()]
    return [
        {"protocol": protocol, "length": length, "stride": 64, "status": "ok", "bits_per_byte": value}
        for protocol, length, value in entries
    ]


def sentences(folder, series: dict, train_length=128, base=None) -> str:
    """The answer for series (label → rows); labels in `base` are overrides of the run of another label."""
    base = base or {}
    evaluations: dict = {}
    for label, entries in series.items():
        content = {"series": label, "train_length": train_length, "rows": entries}
        content["override"] = {"model.position.scaling.name": label} if label in base else {}
        evaluations.setdefault(base.get(label, label), []).append(content)
    for index, contents in enumerate(evaluations.values()):
        write_run(folder, f"r{index}", contents)
    points = [{"label": label, "run_id": f"r{index}"} for index, label in enumerate(evaluations)]
    study = read_study(write_study(folder, points, train_length=train_length))
    return " ".join(answer(study, collect_series(study)))


def test_gains_and_losses_at_a_multiple_of_the_training_length(tmp_path):
    text = sentences(
        tmp_path,
        {
            "alibi": rows({128: 2.6, 2048: 2.58}, {128: 2.5, 2048: 2.495}),
            "t5": rows({128: 2.6, 2048: 2.6001}),
            "rope": rows({128: 2.5, 2048: 2.9}),
            "none": rows({128: 2.7, 2048: 3.8}),
        },
    )
    assert text.startswith(
        "At 16× the training length (2,048 against 128 tokens, non-overlapping windows), alibi gains 0.020 bits per "
        "byte; t5 stays as it was; rope loses 0.400 and none 1.100 bits per byte."
    )
    assert "At 2,048 tokens the best is alibi with 2.580 bits per byte, followed by t5 with 2.600." in text
    assert "the gain of alibi, 0.020 in non-overlapping windows, shrinks to 0.005 (75 % of it vanishes)" in text


def test_repairs_are_shares_of_the_loss(tmp_path):
    text = sentences(
        tmp_path,
        {
            "rope": rows({128: 2.2, 512: 2.6}),
            "rope · ntk": rows({128: 2.2, 512: 2.5}),
            "rope · linear": rows({128: 2.3, 512: 2.7}),
            "rope · same": rows({128: 2.2, 512: 2.6}),
        },
        base={"rope · ntk": "rope", "rope · linear": "rope", "rope · same": "rope"},
    )
    assert (
        "Of the 0.400 bits per byte that rope loses, without retraining, rope · ntk repairs 25 %; "
        "rope · same changes nothing; rope · linear (+0.100) makes it worse." in text
    )
    assert "At 4× the training length" in text and "rope · ntk loses" not in text


def study_of(folder, series: dict):
    """A study of one run a series: label → (rows, fields of its evaluation and of its provenance)."""
    for label, (entries, fields, provenance) in series.items():
        content = {"series": label, "train_length": 128, "rows": entries} | fields
        write_run(folder, label, [content], **provenance)
    study = read_study(write_study(folder, [{"label": label, "run_id": label} for label in series]))
    return study, collect_series(study)


def test_what_was_measured_otherwise_repairs_nothing(tmp_path):
    overrides = {
        "rope · ntk": {"model.position.scaling.name": "ntk"},
        "rope · step 200": {"step": 200},
        "rope · fewer": {"evaluation.documents": "1"},
        "rope · ntk, fewer": {"model.position.scaling.name": "ntk", "evaluation.documents": "1"},
    }
    contents = [
        {"series": label, "train_length": 128, "override": override, "rows": rows({128: 2.2, 512: 2.5})}
        for label, override in overrides.items()
    ]
    contents.append({"series": "rope", "train_length": 128, "override": {}, "rows": rows({128: 2.2, 512: 2.6})})
    write_run(tmp_path, "rope", contents)
    study = read_study(write_study(tmp_path, [{"label": "rope", "run_id": "rope"}]))
    text = " ".join(answer(study, collect_series(study)))
    assert "that rope loses, without retraining, rope · ntk repairs 25 %." in text


def test_series_of_other_text_are_noted_and_not_compared(tmp_path):
    flat, loses = rows({128: 2.0, 512: 2.0}), rows({128: 2.2, 512: 2.6})
    measured = {"old": (loses, {}, {}), "b": (loses, {"text": "t1"}, {}), "c": (loses, {"text": "t1"}, {})}
    study, series = study_of(tmp_path, {"a": (flat, {"text": "t2"}, {}), **measured})
    text = " ".join(answer(study, series))
    assert "old loses 0.400, b 0.400 and c 0.400 bits per byte. At 512 tokens the best is old with 2.600" in text
    assert "Not ranked: a (it scores other text)." in text
    assert comparison_notes(series) == ["a scores other text than the other series: numbers cannot be compared"]
    assert comparison_notes(series[1:]) == [] and "Not ranked" not in " ".join(answer(study, series[1:]))


def test_another_text_repairs_nothing(tmp_path):
    entries = {"rope": rows({128: 2.2, 512: 2.6}), "ntk": rows({128: 2.2, 512: 2.5}), "yarn": rows({128: 2, 512: 2.1})}
    contents = [
        {"series": label, "train_length": 128, "rows": marks, "text": "t2" if label == "yarn" else "t1"}
        | {"override": {} if label == "rope" else {"model.position.scaling.name": label}}
        for label, marks in entries.items()
    ]
    write_run(tmp_path, "rope", contents)
    study = read_study(write_study(tmp_path, [{"label": "rope", "run_id": "rope"}]))
    text = " ".join(answer(study, collect_series(study)))
    assert "rope · ntk repairs 25 %." in text and "best is rope · ntk with" in text


def test_tokenizers_that_end_elsewhere_are_compared_with_a_note_on_the_bytes(tmp_path):
    """Documents cut after so many tokens are other text for each: none is that of most."""
    measured = {}
    for index, label in enumerate(("v512", "v2048")):
        entries = [row | {"bytes": 1000 + index} for row in rows({128: 2.2 - 0.1 * index})]
        measured[label] = (entries, {"text": label}, {"tokenizer_hash": label})
    study, series = study_of(tmp_path, measured)
    assert "the best of 2 series is v2048" in answer(study, series)[0]
    (note,) = comparison_notes(series)
    assert note.startswith("The series scored from 1,000 to 1,001 bytes of text, not all the same: ")
    assert note.endswith("evaluation.tokens_per_document = 0 scores whole documents")


def test_a_tokenizer_that_drops_text_is_not_called_the_best(tmp_path):
    word = {"tokenizer_report": {"lossless": False}, "tokenizer_hash": "word"}
    low, middle, high = (rows({128: value, 512: value}) for value in (0.4, 2.2, 2.4))
    study, series = study_of(tmp_path, {"word": (low, {}, word), "bpe": (middle, {}, {}), "rope": (high, {}, {})})
    text = " ".join(answer(study, series))
    assert "At 512 tokens the best is bpe with 2.200 bits per byte, followed by rope with 2.400." in text
    assert "Not ranked: word (its tokenizer drops text)." in text
    (note,) = comparison_notes(series)
    assert note.startswith("word: the tokenizer drops text (not an exact round trip), so its bits per byte are too low")
    # Among models that share it, nobody is favoured.
    study, series = study_of(tmp_path / "alike", {"a": (low, {}, word), "b": (middle, {}, word)})
    assert "the best is a with 0.400" in " ".join(answer(study, series)) and len(comparison_notes(series)) == 1


def test_no_gain_under_either_protocol(tmp_path):
    text = sentences(tmp_path, {"rope": rows({128: 2.2, 512: 2.6}, {128: 2.1, 512: 2.65})})
    assert "No series gains from windows longer than 128 tokens" in text
    assert "rope changes by +0.550 instead of +0.400" in text
    assert "the best is" not in text


def test_a_gain_may_turn_into_a_loss(tmp_path):
    text = sentences(tmp_path, {"rope": rows({128: 2.6, 512: 2.5}, {128: 2.4, 512: 2.45})})
    assert "the gain of rope, 0.100 in non-overlapping windows, turns into a loss of 0.050." in text


def test_one_length(tmp_path):
    text = sentences(tmp_path / "two", {"a": rows({128: 2.6}), "b": rows({128: 2.4})})
    assert text == (
        "At 128 tokens, the only length evaluated (non-overlapping windows), the best of 2 series is b with 2.400 bits "
        "per byte; the worst is a with 2.600."
    )
    text = sentences(tmp_path / "one", {"a": rows({128: 2.6})})
    assert text.endswith("the only series is a with 2.600 bits per byte.")


def test_the_training_length_itself_was_not_evaluated(tmp_path):
    text = sentences(tmp_path, {"a": rows({256: 2.6, 512: 2.7})})
    assert text.startswith(
        "From 256 to 512 tokens (trained at 128, non-overlapping windows), a loses 0.100 bits per byte."
    )


def test_a_multiple_is_said_where_all_that_is_compared_was_trained_at_that_length(tmp_path):
    """As where some points are trained on at a longer length: 512 tokens are 4 times that of one alone."""
    for label, trained in (("rope", 128), ("adapted", 512)):
        content = {"series": label, "train_length": trained, "rows": rows({128: 2.2, 512: 2.5})}
        write_run(tmp_path, label, [content])
    study = read_study(write_study(tmp_path, [{"label": name, "run_id": name} for name in ("rope", "adapted")]))
    series = collect_series(study)
    text = " ".join(answer(study, series))
    assert text.startswith("From 128 to 512 tokens (trained at 128 or 512, non-overlapping windows), rope loses")
    assert answer(study, series[:1])[0].startswith("At 4× the training length (512 against 128 tokens")


def test_many_series_are_summed_up(tmp_path):
    text = sentences(tmp_path, {f"s{k}": rows({128: 2.0, 256: 2.0 + 0.1 * (k - 1)}) for k in range(10)})
    assert (
        "8 of 10 series lose quality: s0 gains 0.100 bits per byte; s1 stays as it was; at the other end s9 loses 0.800"
        in text
    )


def test_seeds_are_averaged(tmp_path):
    points = []
    for seed, end in enumerate((2.5, 2.7)):
        content = {"series": "a", "seed": seed, "train_length": 128, "rows": rows({128: 2.4, 512: end})}
        write_run(tmp_path, f"r{seed}", [content], seed=seed)
        points.append({"label": "a", "run_id": f"r{seed}"})
    study = read_study(write_study(tmp_path, points))
    assert "a (mean of 2 seeds) loses 0.200 bits per byte." in " ".join(answer(study, collect_series(study)))


def seeds_of(folder, label, ends, points):
    """Runs of one label, a seed each, by their bits per byte at 512 tokens; None where that failed."""
    for seed, end in enumerate(ends):
        content = {"series": label, "seed": seed, "train_length": 128, "rows": rows({128: 2.4, 512: end})}
        if end is None:
            content["rows"][1] |= {"status": "failed", "reason": "the loss of 3 tokens is not finite"}
        write_run(folder, f"{label}{seed}", [content], seed=seed)
        points.append({"label": label, "run_id": f"{label}{seed}"})


def test_what_differs_in_more_than_its_seed_is_never_averaged(tmp_path):
    points = []
    seeds_of(tmp_path, "rope", (2.5, 2.7, 2.9, 2.9), points)
    longer, looked_at = (tmp_path / "runs" / f"rope{seed}" / "config.json" for seed in (2, 1))
    content = json.loads(longer.read_text())
    longer.write_text(json.dumps(content | {"train": content["train"] | {"steps": 900}}))
    looked_at.write_text(json.dumps(content | {"seed": 1, "train": content["train"] | {"log_every": 1}}))
    # And one that started from another run than the first one did.
    (tmp_path / "runs" / "rope3" / "config.json").write_text(json.dumps(content | {"seed": 0, "initial": {"run": "a"}}))

    def labels(listed):
        return [point.label for point in read_study(write_study(tmp_path, listed)).points]

    assert labels(points[:2]) == ["rope", "rope"]
    assert labels(points[:3]) == ["rope (rope0)", "rope (rope0)", "rope (rope2)"]
    assert labels([points[0], points[3], points[1]]) == ["rope (rope0)", "rope (rope3)", "rope"]
    # What never began is of no known configuration.
    assert labels([*points[:2], {"label": "rope", "run_id": "later", "status": "missing"}]) == ["rope"] * 3
    study = read_study(write_study(tmp_path, points[:3]))
    text = " ".join(answer(study, collect_series(study)))
    assert "rope (rope0) (mean of 2 seeds) loses 0.200" in text and "rope (rope2) 0.500" in text


def test_runs_trained_on_other_text_are_named(tmp_path):
    for label in ("rope", "alibi", "none"):
        vocabulary = 512 if label == "none" else 2048  # of its own tokenizer, so it says nothing
        trained_on = {"data_hash": label if label != "rope" else "usual"}
        content = {"series": label, "train_length": 128, "rows": rows({128: 2.4, 512: 2.5}), "text": "t"}
        write_run(tmp_path, label, [content], vocabulary=vocabulary, **trained_on)
    write_run(tmp_path, "rope1", [{"series": "rope", "train_length": 128, "text": "t"}], seed=1, data_hash="usual")
    points = [{"label": label.strip("1"), "run_id": label} for label in ("rope", "rope1", "alibi", "none")]

    def notes(listed):
        found = comparison_notes(collect_series(read_study(write_study(tmp_path, listed))))
        return [note for note in found if "trained on" in note]

    said = (
        "alibi was trained on other text than the other series of the same tokenizer, which may be what they differ by"
    )
    assert notes(points) == [said]
    assert notes([points[0], points[1], points[3]]) == []


def test_a_scheme_is_not_ranked_by_the_seeds_that_survived(tmp_path):
    points = []
    seeds_of(tmp_path, "unstable", (2.1, None, 2.1), points)
    seeds_of(tmp_path, "steady", (2.5, 2.7, 2.6), points)
    seeds_of(tmp_path, "slow", (2.8, 2.8, 2.8), points)
    study = read_study(write_study(tmp_path, points))
    series = collect_series(study)
    text = " ".join(answer(study, series))
    assert "the best is steady with 2.600 bits per byte (mean of 3 seeds, 2.500–2.700), followed by slow" in text
    assert "1 of 3 seeds of unstable failed at 512 tokens." in text and "unstable gains" not in text
    assert "unstable: 1 of 3 seeds failed at 512, not shown as the others' mean" in row_notes(series)
    assert [(mark.x, mark.failed, mark.runs) for mark in length_curve(series[0], "non_overlapping")] == [
        (128, 0, 3),
        (512, 1, 3),
    ]
    drawn = length_figure(study, series).svg
    assert drawn.count("▲ 1/3 failed</text>") == 1


def test_a_seed_that_failed_in_training_counts(tmp_path):
    points = []
    seeds_of(tmp_path, "unstable", (2.1, 2.1), points)
    seeds_of(tmp_path, "steady", (2.5, 2.7), points)
    for path in (tmp_path / "runs" / "unstable1" / "evaluation").iterdir():
        path.unlink()
    (tmp_path / "runs" / "unstable1" / "error.txt").write_text("the loss is not finite\n")
    study = read_study(write_study(tmp_path, points))
    text = " ".join(answer(study, collect_series(study)))
    assert "1 of 2 seeds of unstable failed at 512 tokens." in text and "the best" not in text


def test_figures_of_what_survived_say_so(tmp_path):
    for seed in range(3):
        write_run(tmp_path, f"r{seed}", [evaluation("a", f"r{seed}", 2.2, 0.1, seed=seed)] if seed else [], seed=seed)
    (tmp_path / "runs" / "r0" / "error.txt").write_text("the loss is not finite\n")
    study = read_study(write_study(tmp_path, [{"label": "a", "run_id": f"r{seed}"} for seed in range(3)]))
    series = collect_series(study)
    note = (
        "a: 1 of 3 seeds failed, in training or at a length; where they have no number, the mean is that of the others"
    )
    assert note in position_figure(study, series).notes and note in context_figure(study, series).notes


def test_what_is_missing_at_the_longest_length_is_told(tmp_path):
    learned = rows({128: 2.6})
    learned.append({"protocol": "non_overlapping", "length": 512, "status": "undefined", "bits_per_byte": None})
    text = sentences(tmp_path, {"rope": rows({128: 2.2, 512: 2.6}), "learned": learned})
    assert "learned is undefined beyond 128 tokens." in text
    assert "learned loses" not in text


def equal_sentences(folder, series: dict) -> str:
    """The answer for series (label → bits per byte at 128 tokens, at bytes → bits per byte)."""
    for label, (value, by_bytes) in series.items():
        content = {"series": label, "train_length": 128, "rows": rows({128: value, 512: value + 0.1} if value else {})}
        write_run(folder, label, [content | {"equal_bytes": equal_bytes(by_bytes, 2.0)}])
    study = read_study(write_study(folder, [{"label": label, "run_id": label} for label in series]))
    return " ".join(answer(study, collect_series(study)))


def test_the_best_at_equal_tokens_and_at_equal_bytes_are_told_in_one_sentence(tmp_path):
    text = equal_sentences(tmp_path / "a", {"v512": (2.5, {128: 2.4, 240: 2.3}), "v2048": (2.3, {128: 2.45, 240: 2.2})})
    assert (
        "In windows of equally many tokens the best is v2048 (2.300 at 128 tokens), in windows that hold equally many "
        "bytes of text v512 (2.400 at 128 bytes) and v2048 (2.200 at 240 bytes)." in text
    )
    text = equal_sentences(tmp_path / "b", {"v512": (2.5, {128: 2.4, 240: 2.3}), "v2048": (2.3, {128: 2.1, 240: 2.0})})
    assert "bytes of text again v2048 (2.100 at 128 bytes and 2.000 at 240 bytes)." in text
    text = equal_sentences(tmp_path / "c", {"v512": (None, {128: 2.4}), "v2048": (None, {128: 2.1})})
    assert text == "In windows that hold equally many bytes of text the best is v2048 (2.100 at 128 bytes)."
    for name, measured in (("d", {"v512": (2.5, {}), "v2048": (2.3, {})}), ("e", {"v512": (2.5, {128: 2.4})})):
        assert "equally many" not in equal_sentences(tmp_path / name, measured)


def test_nothing_finite(tmp_path):
    text = sentences(tmp_path, {"a": rows({128: float("inf"), 512: float("nan")})})
    assert "no series has" in text or "nothing to compare" in text
    assert json.dumps(text)
