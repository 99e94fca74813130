from tiny import make_team, make_trainer


def test_card_cites_the_paper_and_says_how_to_load_the_team(tmp_path):
    team = make_team(2)
    team[1].trainable = False
    trainer = make_trainer(tmp_path, team)
    trainer.hub_model_id = "me/team"
    trainer.create_model_card("my-team", dataset_name="some/data", tags="mine")
    card = (tmp_path / "README.md").read_text()
    assert "2605.15207" in card and "citation" in card.lower() and "my-team" in card
    assert all(tag in card for tag in ("- teamtr", "- trl", "- mine", "some/data"))
    assert "- `x`: `Qwen3ForCausalLM`\n- `y`: `Qwen3ForCausalLM`, frozen" in card
    assert 'Team.from_pretrained("me/team")' in card
    assert "pipeline(" not in card and "## Training procedure" in card
