"""What a study is: configurations, sweeps, evaluation, reports."""
