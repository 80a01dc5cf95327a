"""The search for better recipes under the same budget for every contestant."""
