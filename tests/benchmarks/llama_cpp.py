"""llama.cpp, the peer of bench_serving.py: built from its source on PyPI, and models converted to GGUF for it.

    python -m tests.benchmarks.llama_cpp build ~/.cache/phikit/llama.cpp        # about eight minutes on two cores
    python -m tests.benchmarks.llama_cpp convert ~/.cache/phikit/llama.cpp MODEL_FOLDER out.gguf

The source comes with the source distribution of llama-cpp-python; cmake and a C++ compiler are needed. Converting needs
`pip install gguf sentencepiece` besides the training packages.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TARGETS = ("llama-server", "llama-quantize")
OPTIONS = (
    "CMAKE_BUILD_TYPE=Release",
    "GGML_NATIVE=ON",
    "LLAMA_CURL=OFF",
    "LLAMA_OPENSSL=OFF",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_BUILD_WEBUI=OFF",
    "LLAMA_BUILD_UI=OFF",
)

#: Runs in llama.cpp's source folder. Its converter asks a Phi-3 model for a SentencePiece file; the kit's small models
#: have a byte-level BPE, which GGUF calls gpt2.
CONVERT = """
import sys
source, model, out = sys.argv[1:]
sys.path[:0] = [source + "/gguf-py", source]
import gguf
import conversion.phi

def set_vocab(self):
    tokens, kinds, _ = self.get_vocab_base()
    self.gguf_writer.add_tokenizer_model("gpt2")
    self.gguf_writer.add_tokenizer_pre("gpt-2")
    self.gguf_writer.add_token_list(tokens)
    self.gguf_writer.add_token_types(kinds)
    gguf.SpecialVocab(self.dir_model, load_merges=True).add_to_gguf(self.gguf_writer)

conversion.phi.Phi3MiniModel.set_vocab = set_vocab
conversion.phi.Phi3MiniModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
import convert_hf_to_gguf
sys.argv = ["convert_hf_to_gguf.py", model, "--outfile", out, "--outtype", "f32"]
convert_hf_to_gguf.main()
"""


def build(folder: Path) -> None:
    """Fetch the source into `folder`/source and build into `folder`/build; nothing is done twice."""
    folder.mkdir(parents=True, exist_ok=True)
    if not source(folder).is_dir():
        with tempfile.TemporaryDirectory() as download:
            fetch = ["pip", "download", "--no-deps", "--no-binary", ":all:", "--dest", download, "llama-cpp-python"]
            subprocess.run([sys.executable, "-m", *fetch], check=True)
            with tarfile.open(next(Path(download).glob("*.tar.gz"))) as archive:
                archive.extractall(download, filter="data")
            vendored = next(Path(download).glob("*/vendor/llama.cpp"))
            subprocess.run(["cp", "-r", vendored, source(folder)], check=True)
    options = [f"-D{option}" for option in OPTIONS]
    subprocess.run(["cmake", "-S", source(folder), "-B", folder / "build", *options], check=True)
    jobs = str(len(os.sched_getaffinity(0)))
    subprocess.run(["cmake", "--build", folder / "build", "--parallel", jobs, "--target", *TARGETS], check=True)


def source(folder: Path) -> Path:
    """llama.cpp's source tree."""
    return folder / "source"


def program(folder: Path, name: str) -> Path:
    """One of TARGETS."""
    return folder / "build" / "bin" / name


def convert(folder: Path, model: Path, out: Path) -> None:
    """Convert a Hugging Face folder to a float32 GGUF file."""
    quietly([sys.executable, "-c", CONVERT, source(folder), model, out])


def quantise(folder: Path, model: Path, out: Path, kind: str) -> None:
    """Quantise a GGUF file to Q8_0, Q4_0 and the like."""
    quietly([program(folder, "llama-quantize"), model, out, kind])


def quietly(command: list[str | Path]) -> None:
    """Run a program whose many words are of use only when it fails.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-2000:]}")


def main() -> None:
    """Build, or convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build").add_argument("folder", type=Path)
    converting = commands.add_parser("convert")
    for name in ("folder", "model", "out"):
        converting.add_argument(name, type=Path)
    asked = parser.parse_args()
    if asked.command == "build":
        build(asked.folder.expanduser())
    else:
        convert(asked.folder.expanduser(), asked.model, asked.out)


if __name__ == "__main__":
    main()
