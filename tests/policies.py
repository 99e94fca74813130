"""What the policies of speakers say of messages, and how their weights are changed."""

import torch


def shift(speaker):
    """Change the weights of a speaker that are trained."""
    with torch.no_grad():
        for parameter in speaker.policy.model.parameters():
            parameter += 0.2 * parameter.requires_grad


def check_logps(speakers, requests, answers, atol=1e-5):
    """The log-probabilities of `answers` are those of the policies here."""
    policies = {speaker.name: speaker for speaker in speakers}
    for request, written in zip(requests, answers, strict=True):
        speaker = policies[request.agent]
        with torch.no_grad():
            logits = speaker.policy.model(torch.tensor([request.context + written.ids])).logits[0]
        logps = (logits / speaker.sampling.temperature).log_softmax(-1)[len(request.context) - 1 : -1]
        found = logps.gather(1, torch.tensor(written.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(written.logps), found, atol=atol, rtol=0)
