"""One metric of a running provisioner."""

import httpx2


async def metric(port: int, name: str) -> float | None:
    """The value of a metric without labels; None if it is not told."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return float(lines[0].rpartition(" ")[2]) if lines else None
