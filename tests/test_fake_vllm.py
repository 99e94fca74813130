"""The fake vLLM server answers as a real one does, to which tests/on_vllm puts the same questions."""

from fake_vllm import serving
from server_contract import check_contract
from vllm_teams import save_base


def test_the_fake_server_answers_as_a_real_one(tmp_path):
    base = save_base(tmp_path / "base", size=4)
    with serving(base) as server:
        check_contract(server.url, base)
