"""A study's results, written down: the table, the figures, the page."""

from pathlib import Path

from vit_vs_cnn.studies.figures import write_figures
from vit_vs_cnn.studies.page import render_page, terminal_table
from vit_vs_cnn.studies.plan import Plan
from vit_vs_cnn.studies.results import read_results, results_table, write_table
from vit_vs_cnn.studies.summary import Summary, answer, summarize
from vit_vs_cnn.tracking.lineage import GIT_COMMIT_TAG, lineage_tags

PAGE = "study.html"
_MADE = ("*.png", "*.svg", "*.csv", "*.parquet", "*.html")


def publish_study(plan: Plan, folder: Path) -> Summary:
    """Write results.csv, results.parquet, answer.txt, figures and study.html, in place of earlier ones."""
    summary = summarize(read_results(folder, plan))
    for pattern in _MADE:
        for path in folder.glob(pattern):
            path.unlink()
    write_table(results_table(summary.results), folder)
    write_figures(summary, folder)
    text = f"{terminal_table(summary)}\n\n{answer(summary)}\n"
    (folder / "answer.txt").write_text(text, encoding="utf-8")
    (folder / PAGE).write_text(render_page(summary, folder, lineage_tags()[GIT_COMMIT_TAG]), encoding="utf-8")
    return summary
