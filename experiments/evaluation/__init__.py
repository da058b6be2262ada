"""Evaluation that can be believed: every held-out token scored once, under two stated protocols, at any length."""
