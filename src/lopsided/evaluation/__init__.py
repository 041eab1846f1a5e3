"""From scores to numbers: metrics, decisions, and whether a difference is real."""
