"""Telling people of a flow run's end, through the notification block of Prefect that params.yaml names."""

from typing import TYPE_CHECKING, Any

from vit_vs_cnn.config.load import read_settings
from vit_vs_cnn.core.paths import PARAMS, main_root

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State


async def tell_of_the_end(flow: "Flow[..., Any]", flow_run: "FlowRun", state: "State[Any]") -> None:
    """A hook of the flow: notify through `flow.notify.block` where `flow.notify.ends` has this kind of end."""
    settings = read_settings(main_root() / PARAMS).flow.notify
    if settings.block is None or state.type.value.lower() not in settings.ends:
        return
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block

    block: Any = await Block.aload(settings.block)
    assert isinstance(block, NotificationBlock)
    first_line = (state.message or "").partition("\n")[0]
    await block.notify(first_line, subject=f"{flow.name}: {flow_run.name} {state.type.value.lower()}")
