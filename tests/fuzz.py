"""Texts that a coverage-guided fuzzer makes: whatever a text says, it is a program or a mistake, in good time.

    python -m tests.fuzz                 ten minutes
    python -m tests.fuzz --seconds 60

Needs atheris (``pip install atheris``, Linux). It begins with every program of the tests and of the library, changes
bytes and tokens, and keeps what reaches new lines of gdsl.language. A text is parsed, written out and parsed again, and
checked with all its flags. What is not a LanguageError, takes over ten seconds or 4 GB is a finding, and is printed.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS_A_TEXT = 10
MEGABYTES = 4096
LONGEST = 6000

TOKEN = re.compile(
    r'"[^"\n]*"|#[^\n]*|[A-Za-z_][A-Za-z0-9_]*\'*|[0-9.]+(?:[eE][+-]?[0-9]+)?|\*\*|->|\.\.|[<>=!]=|\s+|.'
)
# What programs of people rarely say.
RARE = """9 0 -1 1e308 1e-320 inf nan 99999999999999999999 0.1 '' ' i j g none true false 1..K 0..0 9**9 d' 3' init at j
by rel ; -> ~ : int(3) = 1 @ ** % $ \\ / // /* */ \N{SNOWMAN} \0 "a" "*/" graph layer""".split()


def attack(text: str) -> bool:
    """Whether the text is a program. Anything but a program or a LanguageError is raised."""
    from gdsl.language.errors import LanguageError
    from gdsl.language.format import format_program
    from gdsl.language.parse import parse
    from gdsl.language.placeholders import check_any

    try:
        program = parse(text)
        written = format_program(program)
        if format_program(parse(written)) != written:
            raise AssertionError("the written program is written in another way the second time")
        for layer in program.layers:
            check_any(layer)
    except LanguageError as error:
        str(error)
        return False
    return True


def programs() -> list[str]:
    """Every program at hand, once."""
    from tests.programs.sources import PROGRAMS

    here = Path(__file__).resolve().parent
    files = [*here.parent.glob("gdsl/nn/programs/*.gdsl"), *here.parent.glob("examples/*.gdsl")]
    wrong = (here / "language" / "mistakes.txt").read_text(encoding="utf-8").split("\n---")
    return [*(text for text, *_ in PROGRAMS.values()), *(f.read_text(encoding="utf-8") for f in sorted(files)), *wrong]


def changed(text: str, chance: random.Random, others: list[str]) -> str:
    """The text with a few tokens left out, doubled, exchanged, or taken from elsewhere."""
    tokens = TOKEN.findall(text)
    pool = TOKEN.findall(chance.choice(others)) + RARE
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at, length = chance.randrange(len(tokens) + 1), chance.choice((1, 1, 1, 2, 5, 20))
        part = tokens[at : at + length]
        start = chance.randrange(len(pool))
        new = (
            [],
            part * chance.choice((2, 2, 3, 40)),
            part[::-1],
            [chance.choice(pool)],
            pool[start : start + length],
            [*pool[start : start + length], *part],
        )
        tokens[at : at + length] = chance.choice(new)
    return "".join(tokens)


def fuzz(arguments: list[str]) -> None:
    """Run until the fuzzer's own limit: in a process of its own, which it ends."""
    import atheris

    with atheris.instrument_imports(include=["gdsl.language"]):
        import gdsl.language.check
        import gdsl.language.format
        import gdsl.language.parse
        import gdsl.language.placeholders  # noqa: F401
    others = programs()

    def one(data: bytes) -> None:
        attack(data.decode("utf-8", "replace"))

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.3:
            mutated: bytes = atheris.Mutate(data, most)
            return mutated
        return changed(data.decode("utf-8", "replace"), chance, others).encode("utf-8", "replace")[:most]

    atheris.Setup([sys.argv[0], *arguments], one, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus, findings = folder / "corpus", folder / "findings"
        corpus.mkdir()
        findings.mkdir()
        for k, text in enumerate(programs()):
            (corpus / str(k)).write_text(text, encoding="utf-8")
        limits = [
            f"-max_total_time={options.seconds}",
            f"-seed={options.seed}",
            f"-timeout={SECONDS_A_TEXT}",
            f"-rss_limit_mb={MEGABYTES}",
            f"-max_len={LONGEST}",
            f"-artifact_prefix={findings}/",
            "-print_final_stats=1",
        ]
        script = f"from tests.fuzz import fuzz; fuzz({[str(corpus), *limits]!r})"
        done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, check=False)
        shown = [line for line in done.stderr.splitlines() if not re.match(r"#\d+\s+(NEW|REDUCE|RELOAD)", line)]
        print("\n".join(shown[-60:]))
        for finding in sorted(findings.iterdir()):
            print(f"\n--- {finding.name}\n{finding.read_text(encoding='utf-8', errors='replace')}")
        print("no finding" if done.returncode == 0 else "a finding: see above")
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
