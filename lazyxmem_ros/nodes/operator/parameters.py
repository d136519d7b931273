# SPDX-License-Identifier: Apache-2.0
"""The console's parameters."""

from __future__ import annotations

from lazyxmem_ros.nodes.image_limit import max_pixels_parameter
from lazyxmem_ros.nodes.parameters import ParameterSpec
from lazyxmem_ros.settings import Changes

_OWN = tuple(
    ParameterSpec(name, default, text, bounds=bounds, changes=Changes.NEVER)
    for name, default, text, bounds in (
        (
            "trackers",
            ("lazyxmem_tracker",),
            "Node names of the trackers, with their namespaces (`/robot1/lazyxmem_tracker`); one "
            "without is looked for in the console's own namespace.",
            None,
        ),
        (
            "address",
            "127.0.0.1",
            "Address to listen on. Any but this machine's own loopback needs a token, which is "
            "made and printed at the start.",
            None,
        ),
        ("port", 8080, "Port to listen on; 0 = any that is free.", (0, 65_535)),
        (
            "token_file",
            "",
            "File that keeps the token, so that it stays the same, and is asked for on loopback, "
            "too; made where it is not there. Empty = a new token with every start, none on "
            "loopback.",
            None,
        ),
        ("certificate", "", "TLS certificate chain, a file in PEM; needs `key`.", None),
        ("key", "", "Its private key, a file in PEM.", None),
        (
            "allowed_hosts",
            (),
            "Names beside this machine's own that the page may be opened by, such as that of a "
            "proxy.",
            None,
        ),
        ("max_browsers", 16, "Browsers that may be connected at once.", (1, 1000)),
        (
            "max_message_megabytes",
            8.0,
            "MiB of one message of a browser at most; larger ones end the connection.",
            (0.01, 1024.0),
        ),
        ("max_width", 1280, "Pixels that a picture is wide at most.", (16, 10_000)),
        ("max_rate", 15.0, "Live pictures per second at most.", (0.1, 120.0)),
        ("jpeg_quality", 80, "Quality of the pictures.", (1, 100)),
        (
            "past_time",
            30.0,
            "Seconds by the images' stamps for which pictures are kept, while somebody watches, "
            "and of steady time afterwards. The tracker takes corrections of as long as its own "
            "history is.",
            (0.0, 3600.0),
        ),
        ("past_megabytes", 64, "MiB that they take at most.", (1, 100_000)),
    )
)
PARAMETERS = (*_OWN, max_pixels_parameter(Changes.NEVER))
