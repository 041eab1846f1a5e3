"""fit: one visible loop."""
