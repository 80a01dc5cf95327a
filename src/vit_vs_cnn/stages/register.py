"""register: the trained contestants as versions of the data set's registered model."""

import json

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PREPARED, REGISTERED
from vit_vs_cnn.core.records import write_atomically
from vit_vs_cnn.data.dataset import read_info
from vit_vs_cnn.registry.registration import register
from vit_vs_cnn.registry.versions import CHALLENGER, registered_name
from vit_vs_cnn.tracking.delivery import Delivery
from vit_vs_cnn.tracking.store import store_digest


def run(settings: Settings) -> None:
    """Register every contestant; the best by validation becomes challenger if it is better than the present one."""
    # The models of this very run may still be on their way.
    Delivery().finish_all(deferred=True)
    registration = register(settings, read_info(PREPARED))
    versions = registration.versions
    name = registered_name(settings.data.name)
    REGISTERED.mkdir(parents=True, exist_ok=True)
    record = {"name": name, "versions": versions, CHALLENGER: registration.challenger, "reason": registration.reason}
    record |= {"store": store_digest()}
    write_atomically(REGISTERED / "versions.json", json.dumps(record, indent=2) + "\n")
    listed = ", ".join(f"{contestant} is version {version}" for contestant, version in versions.items())
    print(f"{name}: {listed}. {registration.reason[0].upper()}{registration.reason[1:]}.")
