"""The process of one contender: builds it, then answers "run N steps" on a pipe with the time that they took.

Started by `harness.Contender` with the core to stay on, "module:function" of what to build, and its arguments as JSON.
"""

import importlib
import json
import os
import sys
import time
from typing import Any

from train.allocator import keep_freed_memory


def main(core: str, target: str, arguments: str) -> None:
    # Whatever libraries print goes to the log; only answers go up the pipe.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    if core and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    # As every command does; a step that takes and returns a gigabyte is a fifth faster, of peers too.
    keep_freed_memory()
    module, _, function = target.partition(":")
    try:
        run, facts = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    except ModuleNotFoundError as error:
        answer(missing=error.name)
        return
    answer(facts=facts)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        figures = run(int(line))
        answer(seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu, figures=figures or {})


if __name__ == "__main__":
    main(*sys.argv[1:])
