"""Which process has a trial trained, and whether it is gone."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def driver() -> dict[str, Any]:
    """What a trial tells of the process that has it trained: an id that no other process has, and where to look for
    it.
    """
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "driver": _id(pid), "namespace": _namespace()}


@cache
def _id(pid: int) -> str:
    """A random name of this process; a fork has another."""
    return secrets.token_hex(8)


@cache
def _namespace() -> str:
    """Within what a process is known by its number: one boot of one machine, and one container. Empty where that
    cannot be told.
    """
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def gone(told: Mapping[str, Any]) -> bool:
    """Whether the process that a trial names is gone for sure: all others are known by their heartbeats."""
    mine, pid = driver(), told.get("pid")
    if told.get("driver") == mine["driver"]:
        return True  # an earlier search in this process
    if (
        not (isinstance(pid, int) and 0 < pid < 1 << 31)
        or told.get("namespace") != mine["namespace"]
        or not mine["namespace"]
    ):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return bool(pid == mine["pid"])  # of which this one is the only process now
