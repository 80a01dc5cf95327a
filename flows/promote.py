"""Promotion as a Prefect flow, `vit-vs-cnn/promote`: the gate's table, a person's yes or no, the decision."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from vit_vs_cnn.config.load import read_settings
from vit_vs_cnn.core.errors import GateRejectedError, GateUndecidedError, UserError
from vit_vs_cnn.core.paths import PARAMS, PREPARED, main_root

if TYPE_CHECKING:
    from vit_vs_cnn.registry.audit import Decision
    from vit_vs_cnn.registry.versions import Registry

Version = Annotated[str, Field(examples=["challenger", "3"])]
RegistryName = Annotated[str, Field(examples=["pets", "pets-classifier"])]

DAYS_TO_ANSWER = 7


class Approval(RunInput):
    """The fields in the form of the paused run."""

    approve: bool = Field(default=False, title="Make it champion")
    reason: str = Field(default="", title="Why", max_length=500)
    accept: bool = Field(default=False, title="Promote although the gate is undecided; needs a reason")
    force: bool = Field(default=False, title="Promote although the gate refuses; needs a reason")


@flow(name="vit-vs-cnn", flow_run_name="promote-{version}", description="Makes a version champion behind the gate.")
def promote(version: Version = "challenger", registry: RegistryName = "", unattended: bool = False) -> State[Any]:
    """Judge a version by the gate of params.yaml, ask a person, and make it champion.

    Args:
        version: Number or alias of the version, for example `3` or `challenger`.
        registry: The registered model or its data set, for example `pets`. Empty: that of params.yaml, or the only one.
        unattended: Do not ask: the gate alone decides, and `gate.undecided` where it is undecided.
    """
    from vit_vs_cnn.registry.promotion import gate_report, propose
    from vit_vs_cnn.registry.versions import Registry, resolve_model_name

    settings = read_settings(main_root() / PARAMS)
    try:
        opened = Registry(resolve_model_name(registry or None, settings.data.name))
        proposal = propose(opened, version, settings, main_root() / PREPARED)
        if proposal is None:
            return Completed(message=f"{opened.name}: {version} is the champion already.")
        report = gate_report(opened, proposal, markdown=True)
        create_markdown_artifact(report, key="gate", description="The gate's rules")
        if unattended:
            accept = settings.gate.undecided == "accept" and bool(proposal.undecided)
            answer = Approval(approve=True, accept=accept, reason="gate.undecided: accept" if accept else "")
        else:
            seconds = int(timedelta(days=DAYS_TO_ANSWER).total_seconds())
            answer = pause_flow_run(wait_for_input=Approval.with_initial_data(description=report), timeout=seconds)
            get_run_logger().info("answered: %s %s", "yes" if answer.approve else "no", answer.reason)
        return carry_out(answer, opened, proposal)
    except UserError as error:
        return Failed(message=str(error))


def carry_out(answer: Approval, registry: "Registry", proposal: "Decision") -> State[Any]:
    """Promote or decline what was proposed; only `force` and `accept` override the gate, and only with a reason."""
    from vit_vs_cnn.registry import promotion

    if not answer.approve:
        promotion.decline(registry, proposal, answer.reason)
        return Cancelled(name="Declined", message=f"version {proposal.version} was declined.")
    if (answer.force or answer.accept) and not answer.reason:
        how = "forced" if answer.force else "accepted"
        return Failed(message=f"{how} without a reason: nothing changed; promote it again and give one.")
    try:
        decision = promotion.promote(registry, proposal, force=answer.force, accept=answer.accept, reason=answer.reason)
    except GateUndecidedError as error:
        return Failed(name="Undecided", message=str(error))
    except GateRejectedError as error:
        return Failed(name="Refused", message=str(error))
    return Completed(message=f"{registry.name}: version {decision.version} is the champion now{decision.how}.")
