"""The configuration of a study: a run, how it is evaluated, and what is asked."""

from dataclasses import dataclass, field

from experiments.evaluation.config import EvaluationConfig
from models.errors import require
from train.config import RunConfig


@dataclass(frozen=True)
class LauncherConfig:
    """workers: runs at a time; 0 is one a core on CPU and one in all on an accelerator."""

    workers: int = 0

    def __post_init__(self):
        require(self.workers >= 0, "workers", self.workers, "at least 0 (0 chooses)")


@dataclass(frozen=True)
class StudyConfig(RunConfig):
    """A run's fields, and those of a study around it. name: its folder. title, description: the head of its report."""

    name: str = "study"
    title: str = ""
    description: str = ""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)

    def __post_init__(self):
        super().__post_init__()
        plain = bool(self.name) and all(letter.isalnum() or letter in "-_" for letter in self.name)
        require(plain, "name", self.name, "letters, digits, - and _")
