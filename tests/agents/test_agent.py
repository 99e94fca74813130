import pytest

from trl_teamtr.agents.agent import RESERVED_NAMES, Agent, check_names, check_trainable


@pytest.mark.parametrize("name", ["a", "agent_1", "Solver-2.b", "7", "runner", "checkpoints"])
def test_directory_names_are_accepted(name):
    assert Agent(name, "model").name == name


@pytest.mark.parametrize("name", ["", "_a", ".a", "-a", "a b", "a/b", "..", "a\n", "é", "a:", None, 3])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="name must start with a letter or digit"):
        Agent(name, "model")


@pytest.mark.parametrize("name", [*RESERVED_NAMES, "checkpoint-10", "tmp-checkpoint-10"])
def test_names_that_a_run_uses_are_refused(name):
    with pytest.raises(ValueError, match="is taken by another part of a run's output directory"):
        Agent(name, "model")


def test_only_name_and_model_are_required():
    agent = Agent("a", "model")
    assert agent.trainable
    optional = ("system_prompt", "peft_config", "processing_class", "learning_rate", "trust_region_radius")
    optional += ("generation_kwargs", "chat_template_kwargs")
    assert [getattr(agent, field) for field in optional] == [None] * 7


@pytest.mark.parametrize("radius", [0, 0.0, -0.01, float("nan")])
def test_radius_must_be_positive(radius):
    with pytest.raises(ValueError, match="`trust_region_radius` of agent 'a' is"):
        Agent("a", "model", trust_region_radius=radius)


def test_positive_radius_is_kept():
    assert Agent("a", "model", trust_region_radius=0.02).trust_region_radius == 0.02


def test_check_names_accepts_a_team_with_a_frozen_member():
    check_names([Agent("a", "model"), Agent("b", "model", trainable=False)])


def test_empty_team_raises():
    with pytest.raises(ValueError, match="The team is empty"):
        check_names([])


def test_member_that_is_no_agent_raises():
    with pytest.raises(TypeError, match="got an element of type str"):
        check_names([Agent("a", "model"), "model"])


def test_repeated_names_raise_and_are_listed():
    agents = [Agent(name, "model") for name in "bacab"]
    with pytest.raises(ValueError, match="occur more than once: a, b\\."):
        check_names(agents)


def test_team_of_frozen_agents_raises():
    with pytest.raises(ValueError, match="No agent of the team is trainable"):
        check_trainable([Agent("a", "model", trainable=False), Agent("b", "model", trainable=False)])


@pytest.mark.parametrize("name", ["rollouts.json", "rng_state.pth", "rng_state_0.pth", "before_update_1.safetensors"])
def test_names_of_a_checkpoints_own_files_are_taken(name):
    with pytest.raises(ValueError, match="is taken by another part"):
        Agent(name, "model")


def test_a_name_fits_into_a_file_name():
    Agent("x" * 200, "model")
    with pytest.raises(ValueError, match="has at most 200 characters, .* has 201"):
        Agent("x" * 201, "model")


def test_names_that_differ_in_case_alone_are_refused():
    with pytest.raises(ValueError, match="The agent names Solver, solver differ in upper and lower case only"):
        check_names([Agent("Solver", "m"), Agent("solver", "m"), Agent("judge", "m")])


def test_shared_thoughts_are_kept():
    with pytest.raises(ValueError, match="what everybody reads, it reads too"):
        Agent("a", "m", thoughts="shared", keep_thoughts=False)
