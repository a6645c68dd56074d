"""A rendered room and its map, once for all tests here."""

from __future__ import annotations

import pytest

from saved_room import SavedRoom, make_room


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> SavedRoom:
    return make_room(tmp_path_factory.mktemp("saved-room"))
