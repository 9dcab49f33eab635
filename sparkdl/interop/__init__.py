"""Where models come from and where they go: one file a kind, imported when it is asked for."""
