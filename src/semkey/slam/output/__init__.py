"""Everything a run leaves behind: maps, reports, point clouds, recordings."""
