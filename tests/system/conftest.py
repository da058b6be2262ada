"""Commands under test keep what they prepare apart from the user's own cache."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """One cache of prepared text for all tests here, also for the commands that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGREACH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
