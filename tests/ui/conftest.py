"""The room that the page is shown, rendered once."""

from __future__ import annotations

import pytest

from page.uploads import Uploads, make_uploads


@pytest.fixture(scope="session")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Uploads:
    return make_uploads(tmp_path_factory.mktemp("uploads"))
