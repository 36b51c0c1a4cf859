"""The Identity service: who the driver is and what kind of plugin. Answers from the Config only."""

from csi_provisioner.model import csi
from csi_provisioner.model.csi import services
from sandbox.driver.config import Config


class Identity(services.IdentityBase):
    def __init__(self, config: Config) -> None:
        self._config = config

    async def get_plugin_info(self, message: csi.GetPluginInfoRequest) -> csi.GetPluginInfoResponse:
        return csi.GetPluginInfoResponse(name=self._config.name, vendor_version="sandbox")

    async def get_plugin_capabilities(
        self, message: csi.GetPluginCapabilitiesRequest
    ) -> csi.GetPluginCapabilitiesResponse:
        types = (_type(name) for name in self._config.plugin)
        return csi.GetPluginCapabilitiesResponse(
            capabilities=[csi.PluginCapability(service=csi.PluginCapabilityService(type=type_)) for type_ in types]
        )

    async def probe(self, message: csi.ProbeRequest) -> csi.ProbeResponse:
        # Not being ready is a fault, which `server` puts into this answer.
        return csi.ProbeResponse(ready=True)


def _type(name: str | int) -> csi.PluginCapabilityServiceType:
    # Tests also play drivers of a later CSI version: numbers that have no name yet.
    return csi.PluginCapabilityServiceType[name] if isinstance(name, str) else csi.PluginCapabilityServiceType(name)
