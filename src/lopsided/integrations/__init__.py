"""Losses for the trainers of other libraries: a module for each library, which it does not import."""
