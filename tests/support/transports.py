"""What becomes of transports."""

import gc

import pytest


def drop_unclosed(made):
    """Lets go of what is in the list, of which a transport has to say that it was not closed."""

    def drop():
        made.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed transport"):
        drop()
