"""Contenders that measure nothing, for tests of the harness."""


def counts(start: int, log: str | None = None):
    """A contender that counts its steps."""
    count = start

    def run(steps: int) -> dict[str, float]:
        nonlocal count
        count += steps
        if log is not None:
            with open(log, "a") as file:
                file.write(f"{count}\n")
        return {"count": count}

    return run, {"start": start}


def raises():
    """A contender that cannot be built."""
    raise ZeroDivisionError
