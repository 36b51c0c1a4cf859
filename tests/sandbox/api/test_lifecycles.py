"""Namespaces and definitions take with them what they rule over."""

from sandbox.api.objects import Objects
from tests.sandbox.api.client import config_map


def test_a_namespace_goes_with_all_its_contents() -> None:
    objects = Objects(seed=1)
    objects.create("Namespace", {"metadata": {"name": "team"}})
    for number in range(2000):
        objects.create("ConfigMap", config_map(f"c{number}"), "team")
    objects.create("ConfigMap", config_map("elsewhere"), "default")
    assert objects.delete("Namespace", "team").gone is False
    assert objects.find("Namespace", "team") is None
    assert [obj["metadata"]["name"] for obj in objects.all("ConfigMap")] == ["elsewhere"]


def test_a_namespace_waits_for_what_is_held_in_it() -> None:
    objects = Objects(seed=1)
    objects.create("Namespace", {"metadata": {"name": "team"}})
    objects.create("ConfigMap", config_map("held", finalizers=["a.test/x"]), "team")
    objects.create("Secret", {"metadata": {"name": "s"}}, "team")
    objects.delete("Namespace", "team")
    assert objects.find("Secret", "s", "team") is None
    namespace = objects.find("Namespace", "team")
    assert namespace is not None
    assert namespace["status"] == {"phase": "Terminating"}
    objects.edit("ConfigMap", "held", "team", change=lambda obj: obj["metadata"].pop("finalizers"))
    assert objects.find("Namespace", "team") is None


def test_a_definition_goes_with_its_objects() -> None:
    objects = Objects(seed=1)
    names = {"kind": "Thing", "plural": "things"}
    spec = {"group": "a.test", "scope": "Cluster", "names": names, "versions": [{"name": "v1", "storage": True}]}
    objects.create("CustomResourceDefinition", {"metadata": {"name": "things.a.test"}, "spec": spec})
    thing = {"apiVersion": "a.test/v1", "kind": "Thing", "metadata": {"name": "t"}}
    objects.create("Thing", thing)
    objects.delete("CustomResourceDefinition", "things.a.test")
    assert objects.kinds.at("a.test", "v1", "things") is None
