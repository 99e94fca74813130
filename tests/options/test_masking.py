import json

import pytest
from tiny import make_config

from trl_teamtr.options.masking import mask_secrets


@pytest.mark.parametrize(
    "key", ["token", "hub_token", "HF_TOKEN", "client_secret", "password", "wandb_api_key", "api_key"]
)
def test_secrets_are_masked_at_any_depth(key):
    given = {"a": [{"b": {key: "hidden", "other": 1}}], key: "hidden"}
    assert mask_secrets(given) == {"a": [{"b": {key: f"<{key.upper()}>", "other": 1}}], key: f"<{key.upper()}>"}
    assert given[key] == "hidden"


def test_other_values_are_kept():
    given = {
        "num_tokens": 3,
        "eos_token_id": 1,
        "token": None,
        "use_token": True,
        "tokenizer": "path",
        "secrets": "x",
        1: 2,
    }
    assert mask_secrets(given) == given


def test_config_shows_no_secret(tmp_path):
    args = make_config(tmp_path, hub_token="hidden-1", model_init_kwargs={"token": "hidden-2", "dtype": "float32"})
    for shown in (
        json.dumps(args.to_dict()),
        args.to_json_string(),
        str(args.to_sanitized_dict()),
        str(args),
        repr(args),
    ):
        assert "hidden" not in shown
    assert args.to_dict()["model_init_kwargs"] == {"token": "<TOKEN>", "dtype": "float32"}
    assert args.hub_token == "hidden-1" and args.model_init_kwargs["token"] == "hidden-2"
