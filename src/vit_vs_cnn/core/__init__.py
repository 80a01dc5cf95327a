"""What every room needs and no result depends on: errors, paths, processes, the console, records on disk."""
