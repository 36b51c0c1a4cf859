"""What is asked for is what lightkube's own client would ask for."""

from typing import Any

import pytest
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.generic_client import ALL_NS, GenericAsyncClient
from lightkube.core.resource import NamespacedResourceG, Resource

from csi_provisioner.kube import asking
from csi_provisioner.kube.reviews import SelfSubjectAccessReview
from csi_provisioner.model import kubernetes, usage
from csi_provisioner.model.kubernetes import ObjectMeta

KINDS = [
    found
    for module in (kubernetes, usage)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, Resource) and hasattr(found, "_api_info")
]
VERBS = ["delete", "get", "list", "patch", "post", "put", "watch"]


class Lightkube(GenericAsyncClient):
    AdapterClient = staticmethod(lambda _config, _parameters: None)  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(ConnectionParams(trust_env=False), KubeConfig.from_server("").get())


@pytest.mark.parametrize("kind", [*KINDS, SelfSubjectAccessReview], ids=lambda kind: kind.__name__)
def test_every_request_is_lightkubes(kind: Any) -> None:
    assert asking.ALL_NS == ALL_NS
    lightkube = Lightkube()
    namespaces = ["team", ALL_NS] if issubclass(kind, NamespacedResourceG) else [None]
    for verb in VERBS:
        for namespace in namespaces if verb in ("list", "watch") else namespaces[:1]:
            obj = kind(metadata=ObjectMeta("data", namespace)) if verb in ("patch", "post", "put") else None
            headers = {"Content-Type": "application/merge-patch+json"} if verb == "patch" else None
            watches = verb == "watch"
            params = {"limit": 5, "continue": None}
            theirs = lightkube.prepare_request(
                "list" if watches else verb, kind, obj, "data", namespace, watches, params, headers
            )
            given = params | ({"watch": "true"} if watches else {})
            ours = asking.request(verb, kind, "data", namespace, obj=obj, params=given, headers=headers)
            for field in ("method", "url", "params", "data", "headers"):
                assert getattr(ours, field) == getattr(theirs, field), (verb, field)
