# SPDX-License-Identifier: Apache-2.0
"""The settings of the memory, how they depend on each other, and what they are by default."""

from __future__ import annotations

from dataclasses import dataclass

from lazyxmem_ros.settings import Changes, ConfigError, Unit, check, setting

LEFT_OPEN = 0
"""Of a setting whose default adapts to the others."""
MIN_WORKING_FRAMES, KEEP_FIRST_FRAMES, PROTOTYPES = 5, 4, 128
"""What settings that are left open are, where the others leave room for it."""


@dataclass(frozen=True)
class MemoryConfig:
    """The settings of the memory; the defaults are XMem's, but for the first frames and the quota.

    A setting that is LEFT_OPEN is filled in: an instance has the number that counts.
    Raises ConfigError for a value outside its range, and where settings contradict each other.
    """

    memory_every: int = setting(
        5,
        "Frames from one that enters working memory to the next (r).",
        bounds=(1, 10_000),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
        heading="XMem's memory",
    )
    deep_update_every: int = setting(
        -1,
        "Frames between deep updates of the hidden state; -1 = one with every frame that enters "
        "memory.",
        bounds=(-1, 10_000),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
    )
    long_term: bool = setting(
        True,
        "Whether full working memory is consolidated into long-term memory; otherwise its oldest "
        "frame but the first is dropped.",
        changes=Changes.UNCONFIGURED,
    )
    max_working_frames: int = setting(
        10,
        "Frames in working memory that make it full (T_max).",
        bounds=(3, 1000),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
    )
    min_working_frames: int = setting(
        0,
        "Frames that a consolidation leaves in working memory, the first and the newest ones "
        "(T_min); at least 2 and fewer than max_working_frames; 0 = 5, or as many as may be.",
        bounds=(0, 1000),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
    )
    keep_first_frames: int = setting(
        0,
        "Frames that stay in working memory because they are an object's first; at most "
        "max_working_frames less min_working_frames; 0 = 4, or as many as may be; 1 = as XMem's "
        "published code does.",
        bounds=(0, 1000),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
    )
    told_frames: int = setting(
        3,
        "Frames on which a person corrected or set an object's mask that stay in memory for good, "
        "per object: the most distinct ones. 0 = none, as in XMem's published code.",
        bounds=(0, 100),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
    )
    max_told_frames: int = setting(
        6,
        "Frames of all objects together that stay so; of more the least distinct go.",
        bounds=(0, 1000),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
    )
    prototypes: int = setting(
        0,
        "Tokens in long-term memory that one consolidation makes (P); at most "
        "max_long_term_tokens; 0 = 128, or as many as may be.",
        bounds=(0, 10_000),
        unit=Unit.TOKENS,
        changes=Changes.UNCONFIGURED,
    )
    max_long_term_tokens: int = setting(
        10_000,
        "Tokens in long-term memory above which the least used are forgotten (LT_max).",
        bounds=(1, 1_000_000),
        unit=Unit.TOKENS,
        changes=Changes.UNCONFIGURED,
    )
    object_quota: int = setting(
        64,
        "Tokens in long-term memory that show an object and are never forgotten, however long it "
        "is out of view; 0 = as XMem's published code does.",
        bounds=(0, 1_000_000),
        unit=Unit.TOKENS,
        changes=Changes.UNCONFIGURED,
    )
    top_k: int = setting(
        30,
        "Tokens that each query reads from memory.",
        bounds=(1, 10_000),
        unit=Unit.TOKENS,
        changes=Changes.UNCONFIGURED,
    )

    def __post_init__(self) -> None:
        check(self)
        self._fill_in("min_working_frames", MIN_WORKING_FRAMES, self.max_working_frames - 1)
        if not 2 <= self.min_working_frames < self.max_working_frames:
            raise ConfigError(
                f"min_working_frames ({self.min_working_frames}) must be at least 2 and less than "
                f"max_working_frames ({self.max_working_frames})"
            )
        most = self.max_working_frames - self.min_working_frames
        self._fill_in("keep_first_frames", KEEP_FIRST_FRAMES, most)
        if self.keep_first_frames > most:
            raise ConfigError(
                "keep_first_frames must be at most max_working_frames - min_working_frames = "
                f"{most}, not {self.keep_first_frames}"
            )
        self._fill_in("prototypes", PROTOTYPES, self.max_long_term_tokens)
        if self.long_term and self.prototypes > self.max_long_term_tokens:
            raise ConfigError(
                f"prototypes ({self.prototypes}) must be at most max_long_term_tokens "
                f"({self.max_long_term_tokens})"
            )

    def _fill_in(self, name: str, usual: int, most: int) -> None:
        """Let a setting that was left open be the usual number, or the most that may be."""
        if getattr(self, name) == LEFT_OPEN:
            object.__setattr__(self, name, min(usual, most))
