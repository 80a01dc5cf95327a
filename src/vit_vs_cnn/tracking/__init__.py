"""The only place that talks to MLflow: runs, lineage, unsent records, the registry."""
