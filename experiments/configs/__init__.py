"""Configurations of studies: each file opens with the command that runs it and what to expect."""
