"""Checkpoints that survive kill -9, full disks, flipped bits and a changed mesh, or say why they cannot be used."""

from train.checkpoints.manifest import saved_steps
from train.checkpoints.restoring import restore_parameters
from train.checkpoints.saving import CheckpointConfig, Checkpoints, Restored

__all__ = ["CheckpointConfig", "Checkpoints", "Restored", "restore_parameters", "saved_steps"]
