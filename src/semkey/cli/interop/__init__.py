"""Commands that connect semkey with other tools and sessions: large sets, map files, calibration."""
