"""datasync: privacy-tiered data synchronisation and mobility for AI on devices, edges and in the cloud."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasync.nodes.agent import Device

__all__ = ["Device"]


def __getattr__(name: str) -> Any:
    # ``datasync policy check`` and the like must not wait for Arrow and MQTT to be imported
    if name == "Device":
        from datasync.nodes.agent import Device

        return Device
    raise AttributeError(f"module 'datasync' has no attribute {name!r}")
