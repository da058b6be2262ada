"""The report of a study: one self-contained page, its figures as SVG, its numbers as CSV."""

from experiments.report.report import write_report

__all__ = ["write_report"]
