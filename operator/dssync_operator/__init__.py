"""The dssync operator."""
