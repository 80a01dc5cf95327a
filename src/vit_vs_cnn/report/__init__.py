"""Figures, tables and the HTML report.

To add a figure, write a function that returns it and call `writer.add(name, figure, alt)` in its subject's `write_…`
function; its title and caption go into captions.yaml, under the subject and the name. figures.json and the report
follow.
"""
