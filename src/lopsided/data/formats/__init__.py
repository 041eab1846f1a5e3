"""Reads files, one format a module."""
