"""Study folders made of invented numbers, shaped like those that training and evaluation write."""

import itertools
import json
import math
from pathlib import Path

import numpy as np

SCHEMES = {  # bits per byte at the training length, and what a doubling of the length adds
    "none": (2.41, 0.62),
    "sinusoidal": (2.33, 0.19),
    "learned": (2.35, 0.0),
    "t5": (2.26, -0.004),
    "alibi": (2.25, -0.012),
    "rope": (2.23, 0.085),
}
OVERRIDES = {"linear": 0.115, "NTK-aware": 0.064, "dynamic NTK": 0.05, "yarn": 0.09}
LENGTHS = (128, 256, 512, 1024, 2048)


def evaluation(
    series: str, run_id: str, at_training: float, slope: float, *, lengths=LENGTHS, seed=0, override=None, beyond=None
) -> dict:
    """An evaluation whose loss grows by `slope` bits per byte a doubling; undefined past `beyond`."""
    noise = np.random.default_rng(len(series) + seed)
    rows = []
    for length in lengths:
        for protocol in ("non_overlapping", "sliding"):
            row = {"length": length, "protocol": protocol, "status": "ok", "reason": None}
            row["stride"] = length if protocol == "non_overlapping" else length // 4
            if beyond is not None and length > beyond:
                row |= {"status": "undefined", "reason": f"the table has {beyond} positions"}
                row |= dict.fromkeys(
                    ("nats_per_token", "perplexity", "bits_per_byte", "low", "high", "tokens", "bytes", "seconds")
                )
            else:
                doublings = math.log2(length / lengths[0])
                value = at_training + slope * doublings - (0.06 if protocol == "sliding" else 0.03 * doublings / 5)
                value += 0.002 * float(noise.normal())
                nats = value * math.log(2) * 2.69
                row |= {"nats_per_token": nats, "perplexity": math.exp(min(nats, 700)), "bits_per_byte": value}
                row |= {"low": value - 0.05, "high": value + 0.045}
                row |= {"tokens": 184_320, "bytes": 495_821, "seconds": 3.2 + 0.001 * length}
            rows.append(row)
    longest = lengths[-1] if beyond is None else min(beyond, lengths[-1])
    edges = sorted({0, 1, 2, 4, *(int(8 * 2 ** (k / 2)) for k in range(20))})
    edges = [edge for edge in edges if edge < longest] + [longest]
    buckets = []
    for start, stop in itertools.pairwise(edges):
        value = at_training + 4.5 / (1 + start) ** 0.8 - 0.1 + slope * max(0.0, math.log2((stop + 1) / lengths[0]))
        value += 0.01 * float(noise.normal())
        buckets.append(
            {
                "from": start,
                "to": stop,
                "bits_per_byte": value,
                "nats_per_token": value * 1.8,
                "tokens": 90 * (stop - start),
            }
        )
    points = []
    for context in (64, 128, 256, 512, 1024, 1984):
        if context < longest:
            value = at_training + 0.25 / math.log2(context) + slope * max(0.0, math.log2(context / lengths[0]))
            loss = {"nats_per_token": 1.86 * value, "bits_per_byte": value, "low": value - 0.05, "high": value + 0.05}
            points.append({"context": context, "tokens": 5760, **loss})
    return {
        "series": series,
        "run_id": run_id,
        "step": 600,
        "seed": seed,
        "train_length": lengths[0],
        "override": override or {},
        "parameters": 1_057_408,
        "documents": 8,
        "rows": rows,
        "by_position": {"length": longest, "buckets": buckets},
        "context_gain": {"final_tokens": 64, "points": points},
    }


def equal_bytes(values: dict[int, float], bytes_per_token: float) -> list[dict]:
    """Rows of windows chosen by bytes of text (context → bits per byte), as an evaluation lists them."""
    rows = []
    for context, value in values.items():
        length = max(1, round(context / bytes_per_token))
        row = {"context_bytes": context, "length": length, "protocol": "non_overlapping", "stride": length}
        row |= {"status": "ok", "reason": None, "nats_per_token": value * math.log(2) * bytes_per_token}
        row |= {"perplexity": 2 ** (value * bytes_per_token), "bits_per_byte": value}
        row |= {"low": value - 0.03, "high": value + 0.04}
        rows.append(row | {"tokens": round(495_821 / bytes_per_token), "bytes": 495_821, "seconds": 1.5})
    return rows


def vocabularies(folder: Path, contexts=(128, 240), seeds=(0,)) -> Path:
    """A study of vocabularies: the larger, the better at equal tokens; at equal bytes the middle one is best."""
    points = []
    for index, size in enumerate((512, 1024, 2048, 4096, 8192)):
        for seed in seeds:
            run_id, label, covered = f"{index}{seed}ab34cd56ef", f"vocabulary {size}", 1.9 + 0.35 * index
            content = evaluation(label, run_id, 2.35 - 0.02 * index, 0.05, lengths=(128, 256, 512), seed=seed)
            for row in content["rows"]:
                row["tokens"] = round(row["bytes"] / covered)
            level = 2.3 + 0.02 * abs(index - 2) + 0.005 * seed
            content["equal_bytes"] = equal_bytes({c: level - 0.04 * math.log2(c / 128) for c in contexts}, covered)
            write_run(folder, run_id, [content], seed=seed, vocabulary=size, level=level)
            points.append({"label": label, "run_id": run_id, "overrides": {"tokenizer.vocabulary_size": size}})
    fields = {"title": "How large a vocabulary?", "description": "The same decoder under five vocabularies."}
    return write_study(folder, points, name="vocab_size", swept=["tokenizer.vocabulary_size"], **fields)


def write_run(
    folder: Path,
    run_id: str,
    evaluations: list[dict],
    *,
    seed=0,
    vocabulary=2048,
    level=2.2,
    position="rope",
    **provenance,
) -> None:
    """A run folder with a falling training curve that ends near `level` bits per byte."""
    run = folder / "runs" / run_id
    (run / "evaluation").mkdir(parents=True)
    config = {
        "seed": seed,
        "model": {"position": {"name": position}},
        "train": {"length": 128, "steps": 600, "batch_size": 32},
        "tokenizer": {"name": "byte_level_bpe", "vocabulary_size": vocabulary},
        "data": {"corpus": {"name": "shakespeare"}},
        "optimizer": {"name": "adamw"},
    }
    (run / "config.json").write_text(json.dumps(config))
    noise = np.random.default_rng(seed + int(level * 100))
    lines = []
    for step in range(10, 601, 10):
        value = level + 3.4 * math.exp(-step / 90) + 0.05 * float(noise.normal())
        lines.append(
            {
                "step": step,
                "loss": value * 1.86,
                "bits_per_byte": value,
                "tokens_per_second": 8000.0,
                "learning_rate": 3e-3,
                "tokens": step * 4096,
                "seconds": step * 0.5,
            }
        )
        if step % 100 == 0:
            lines.append({"step": step, "held_out_loss": value * 1.9, "held_out_bits_per_byte": value + 0.04})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = {
        "commit": "0f3c1d9a7be2",
        "versions": {"jax": "0.10.2", "flax": "0.12.8"},
        "platform": "cpu",
        "device_kind": "cpu",
        "device_count": 1,
        "process_count": 1,
        "date": "2031-01-02T10:00:10+00:00",
        "from_step": 0,
        "earlier": [],
        "run_id": run_id,
        "data_hash": "9a41c07e",
        "held_out_hash": "4e3385e7",
        "tokenizer_hash": f"tok{vocabulary}",
        "tokenizer_report": {
            "bytes_per_token": 2.69,
            "tokens_per_word": 1.71,
            "vocabulary_size": vocabulary,
            "lossless": True,
            "statement": "every byte sequence survives the round trip",
        },
        "parameters": 1_057_408,
        "active_parameters": 1_057_408,
    }
    (run / "provenance.json").write_text(json.dumps(record | provenance))
    finished = {"step": 600, "seconds": 301.5, "parameters": 1_057_408}
    (run / "finished.json").write_text(json.dumps(finished))
    for index, content in enumerate(evaluations):
        (run / "evaluation" / f"{index:02d}.json").write_text(json.dumps(content))


def write_study(folder: Path, points: list[dict], train_length: int | None = 128, **fields) -> Path:
    """study.json over `points`, each with at least label and run_id."""
    usual = {"overrides": {}, "train_length": train_length, "status": "finished", "error": None}
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "name": "quickstart",
        "title": "Which positional scheme reaches beyond its training length?",
        "description": "Six schemes, one small decoder, trained at 128 tokens and evaluated up to 2,048.",
        "created": "2031-01-02T10:00:00Z",
        "swept": ["model.position.name"],
        "points": [usual | point for point in points],
    }
    (folder / "study.json").write_text(json.dumps(content | fields))
    return folder


def quickstart(folder: Path, schemes=SCHEMES, explode: float = 1.0) -> Path:
    """The quickstart study: one run a scheme, RoPE again under four scalings; `explode` multiplies what hurts."""
    points = []
    for index, (name, (level, slope)) in enumerate(schemes.items()):
        run_id = f"{index:02d}ab34cd56ef"
        slope = slope * explode if slope > 0 else slope
        beyond = 128 if name == "learned" else None
        evaluations = [evaluation(name, run_id, level, slope, beyond=beyond)]
        if name == "rope":
            evaluations += [
                evaluation(
                    f"rope · {scaling} ×16",
                    run_id,
                    level + 0.001,
                    steep,
                    override={"model.position.scaling.factor": 16.0},
                )
                for scaling, steep in OVERRIDES.items()
            ]
        write_run(folder, run_id, evaluations, level=level, position=name)
        points.append({"label": name, "run_id": run_id, "overrides": {"model.position.name": name}})
    return write_study(folder, points)
