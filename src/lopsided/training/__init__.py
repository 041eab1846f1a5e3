"""Trains models in one visible loop."""
