"""An embedded CSI driver: real gRPC on a Unix socket, volumes as folders, faults on request.

It shares nothing with the client side but the generated messages: a fake that shares the client's code shares its
mistakes. `state` decides, `disk` keeps, `identity`, `controller` and `node` translate messages, `faults` misbehaves for
tests, `server` puts them together and `bridge` is the only file that knows of asyncio.
"""

from sandbox.driver.config import GIB, Config, Pool
from sandbox.driver.faults import Fault
from sandbox.driver.server import Call, Driver, serve

__all__ = ["GIB", "Call", "Config", "Driver", "Fault", "Pool", "serve"]
