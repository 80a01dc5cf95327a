"""One thin module per DVC stage: read settings and inputs, call the rooms below, write outputs."""
