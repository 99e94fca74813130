"""The date that chat templates print, fixed for a run: a resumed one must read what an uninterrupted one would."""

import json
from datetime import datetime

from accelerate.utils import broadcast_object_list


# What `strftime` replaces. The longer forms of glibc come first, and the sign itself last.
_DIRECTIVES = [f"%-{letter}" for letter in "dmyHIMSj"] + [
    f"%{letter}" for letter in "aAwdbBmyYHIpMSfzZjUWcxXGuVeDFTRh%"
]


def agree_on_date(given: str | None) -> str:
    """
    The date `given`, else today, the same on all processes, which call this together.

    Args:
        given (`str`, *optional*): A date, as `YYYY-MM-DD`.
    """
    dates = [given or datetime.now().date().isoformat()]  # midnight may lie between two processes
    broadcast_object_list(dates)
    return dates[0]


def with_date(template: str, date: str | None) -> str:
    """
    A chat template that prints `date` where `template` prints the present one; `template` itself if that prints none.

    Templates ask for the date by calling `strftime_now`, which transformers provides, and which no argument can replace:
    transformers passes on data only. A macro of that name, written before the template, takes its place.

    Args:
        template (`str`): The source of the template.
        date (`str`, *optional*): A date, as `YYYY-MM-DD`; today if not given.
    """
    if date is None or "strftime_now" not in template:
        return template
    day = datetime.fromisoformat(date)
    values = json.dumps({directive: day.strftime(directive) for directive in _DIRECTIVES})
    # Jinja leaves out the line break after the macro, so that the template begins on a line of its own, as before
    return (
        "{% macro strftime_now(format) %}{% set filled = namespace(text=format) %}"
        f"{{% for directive, value in {values}.items() %}}"
        "{% set filled.text = filled.text | replace(directive, value) %}{% endfor %}{{ filled.text }}{% endmacro %}\n"
        + template
    )
