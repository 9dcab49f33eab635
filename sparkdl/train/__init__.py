"""Training: who the ranks are, how they start, and the loop that each of them runs."""
