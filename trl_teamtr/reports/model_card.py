"""The model card of a team: TRL's, with the members and how to load them in place of its quick start."""

import re
from collections.abc import Sequence

from huggingface_hub import ModelCard

from ..policy.participant import Participant
from ..policy.speaker import Speaker


QUICK_START = """\
## The team

{members}

{where}, which `from_pretrained` loads. The whole team:

```python
from trl_teamtr import Team

team = Team.from_pretrained("{repository}")
print(team.chat("..."))
```

"""


def describe_team(path: str, speakers: Sequence[Participant], repository: str | None):
    """Replace the quick start of a single model, in the card that TRL wrote to `path`, by the team."""
    card = ModelCard.load(path)
    lines = []
    for speaker in speakers:
        if isinstance(speaker, Speaker):
            model, note = speaker.policy.model, "" if speaker.agent.trainable else ", frozen"
            lines.append(f"- `{speaker.name}`: `{model.config._name_or_path or type(model).__name__}`{note}")
        else:
            lines.append(f"- `{speaker.name}`: `{speaker.agent.model}` at {speaker.agent.endpoint}, frozen")
    where = "Each agent is a model (or adapter) in the directory of its name"
    if len(speakers) == 1:
        where = "The agent is the model (or adapter) in this directory"
    section = QUICK_START.format(members="\n".join(lines), where=where, repository=repository or "path/to/the/team")
    card.text = re.sub(r"## Quick start\n.*?(?=## Training procedure)", lambda _: section, card.text, flags=re.DOTALL)
    card.save(path)
