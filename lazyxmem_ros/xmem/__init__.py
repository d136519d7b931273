# SPDX-License-Identifier: Apache-2.0
"""XMem in plain PyTorch: frames in, probabilities out."""

from lazyxmem_ros.xmem.network import EncoderConfig, NetworkConfig, XMem

__all__ = ["EncoderConfig", "NetworkConfig", "XMem"]
