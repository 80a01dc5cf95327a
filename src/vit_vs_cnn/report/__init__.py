"""Figures, tables and the HTML report.

To add a figure, write a function that returns it (a module named *_figures holds those of its subject) and add it,
with its title and caption, where that subject's `write_…` function lists them. figures.json and the report follow.
"""
