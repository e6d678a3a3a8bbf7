import pytest

from .tiny import make_batch


@pytest.fixture
def tiny_inputs():
    """A batch of two without labels."""
    return {name: value for name, value in make_batch().items() if name != "search_boxes"}
