"""Runs in MLflow: what they record, where they come from, and the outbox for what MLflow does not have yet."""
