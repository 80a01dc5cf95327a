"""How stages are run: the DAG as DVC has it, stages as processes, the servers around them. Prefect decides when."""
