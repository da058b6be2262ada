"""Progress as plain lines and as a bar; peaks of known devices."""

import io
from types import SimpleNamespace

import jax
import pytest

from train.progress import Progress, duration, peak_flops


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_are_rare_but_hold_the_first_and_the_last_step():
    now, stream = [0.0], io.StringIO()
    with Progress(100, stream=stream, seconds=5.0, clock=lambda: now[0]) as progress:
        for step in range(1, 101):
            now[0] += 0.125
            metrics = {"loss": 2.0, "bits_per_byte": 1.5, "tokens_per_second": 12345.6, "model_flop_utilisation": 0.45}
            progress.update(step, metrics)
        progress.note("saved [step 100]")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5 and lines[-1] == "saved [step 100]"
    assert lines[0].startswith("step   1/100 · loss 2.0000 · 1.5000 bits/byte · 12,346 tokens/s · 45.0% of peak FLOP/s")
    assert lines[1].startswith("step  41/100") and lines[1].endswith("7 s left")
    assert lines[2].startswith("step  81/100")
    assert lines[3].startswith("step 100/100") and "left" not in lines[3]


def test_what_is_not_known_is_not_shown():
    stream = io.StringIO()
    with Progress(2, stream=stream) as progress:
        progress.update(1, {"loss": None, "tokens_per_second": 10.0})
    assert stream.getvalue() == "step 1/2 · 10 tokens/s\n"


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with Progress(2, stream=stream) as progress:
        progress.note("a note [in brackets]")
        progress.update(1, {"loss": 3.25})
    assert "a note [in brackets]" in stream.getvalue()
    assert "step 1/2 · loss 3.2500" in stream.getvalue() and "━" in stream.getvalue()


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("Unheard of", None),
    ],
)
def test_peaks_of_devices(kind, peak):
    assert peak_flops(SimpleNamespace(device_kind=kind)) == peak


def test_a_cpu_has_no_known_peak():
    assert peak_flops(jax.devices("cpu")[0]) is None


def test_durations():
    assert [duration(s) for s in (0.4, 42, 187, 7509)] == ["0 s", "42 s", "3:07", "2:05:09"]
