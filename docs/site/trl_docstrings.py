"""Lets mkdocstrings read docstrings as TRL writes them, which are made for the doc builder of Hugging Face."""

import re

import griffe


class TRLDocstrings(griffe.Extension):
    """Rewrites all docstrings of the package, before they are parsed in Google's style."""

    def on_package(self, *, pkg: griffe.Module, **kwargs):
        for each in _walk(pkg):
            if each.docstring is not None:
                each.docstring.value = rewrite(each.docstring.value)


def _walk(parent: griffe.Object):
    yield parent
    for member in parent.members.values():
        if not member.is_alias:
            yield from _walk(member)


def rewrite(text: str) -> str:
    """One docstring."""
    # [`~trl.GRPOTrainer`] is `GRPOTrainer`, [`Team`] is `Team`
    text = re.sub(r"\[`~?(?:[\w]+\.)*?(\w+(?:\.\w+)?)`\]", r"`\1`", text)
    # A heading within the parameters begins another list of them
    text = re.sub(
        r"^ *> Parameters that control (.*)\n\n", r"Parameters: Parameters that control \1\n", text, flags=re.MULTILINE
    )
    text = re.sub(r"^Parameters:\n+(?=Parameters: )", "", text, flags=re.MULTILINE)
    # name (`type`, *optional*, defaults to `1`):
    text = re.sub(r"^( +[\w, ]+) \((.*)\):( |$)", _plain_type, text, flags=re.MULTILINE)
    # `ValueError`: ...
    text = re.sub(r"^( +)`([\w.]+)`: ", r"\1\2: ", text, flags=re.MULTILINE)
    # > [!NOTE]
    text = re.sub(r"^> \[!(\w+)\]\n((?:> .*\n?)+)", _as_admonition, text, flags=re.MULTILINE)
    return _split_names(text)


def _plain_type(match: re.Match) -> str:
    kind = re.sub(r",? *\*optional\*.*", "", match[2]).replace("`", "")  # the default is that of the signature
    if not kind:
        return f"{match[1]}:{match[3]}"
    return f"{match[1]} ({kind}):{match[3]}"


def _as_admonition(match: re.Match) -> str:
    body = "\n".join("    " + line.removeprefix("> ") for line in match[2].splitlines())
    return f"{match[1].capitalize()}:\n{body}\n"


def _split_names(text: str) -> str:
    """`router, stop_condition (...): ...` describes two parameters."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"( +)(\w+(?:, \w+)+)( \(.*\))?: ?(.*)", line)
        if match is None:
            found.append(line)
            continue
        *others, last = match[2].split(", ")
        found += [f"{match[1]}{name}{match[3] or ''}: As `{last}`." for name in others]
        found.append(f"{match[1]}{last}{match[3] or ''}: {match[4]}".rstrip())
    return "\n".join(found)
