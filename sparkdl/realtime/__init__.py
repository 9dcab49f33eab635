"""Real time: one record at a time through Spark 4.3's real-time mode, with no Python in its way."""
