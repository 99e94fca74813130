"""Protocol unification: what the new member takes over of the old one's way of talking."""

import copy
from typing import Any

from ..agents.agent import Agent
from .alignment_config import AlignmentConfig


def unify(agent: Agent, old: Agent, args: AlignmentConfig) -> Agent:
    """
    A copy of `agent` that takes over what `args` says of the protocol of `old`, and always its tools and who reads their calls,
    unless it has tools of its own.
    """
    new = copy.copy(agent)
    if args.take_system_prompt:
        new.system_prompt = old.system_prompt
    if args.thoughts_off and not new.is_remote:
        off: Any = args.thoughts_off_kwargs  # `AlignmentConfig` parses text
        new.chat_template_kwargs = {**(new.chat_template_kwargs or {}), **off}
    if new.tools is None and new.environment_factory is None and not new.is_remote:
        new.tools, new.environment_factory = old.tools, old.environment_factory
        new.tool_visibility = old.tool_visibility
    return new


def describe_unification(args: AlignmentConfig) -> dict[str, bool]:
    """The four switches, as reports have them."""
    return {
        "system_prompt": args.take_system_prompt,
        "thoughts_off": args.thoughts_off,
        "calls": args.map_calls,
        "alignment": args.align,
    }
