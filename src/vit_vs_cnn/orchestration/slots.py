"""Prefect's concurrency limits for what computes on an accelerator."""


def ensure_slots(tag: str, count: int) -> None:
    """Let `count` tasks tagged `tag` run at once, unless a person has set another limit in Prefect already."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectNotFound

    name = f"tag:{tag}"
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=count))
