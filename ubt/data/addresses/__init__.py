"""Shards at addresses: copies of them, or read as they come."""
