"""Helpers of all rooms, on which no result depends: errors, paths, processes, the console, records on disk."""
