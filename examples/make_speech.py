"""Speech to train a vocoder on, made on the spot by the synthesiser espeak-ng: a WAV of 22,050 Hz for each line of a text.

    apt-get install espeak-ng
    python examples/make_speech.py sentences.txt speech/ --minutes 10

Voices, speeds and pitches are drawn with a seed, so the same text, seed and version of espeak-ng give the same files.
Files are named VOICE_NUMBER.wav; `--options.label_pattern '^(?P<label>[^_]+)_'` makes the voice a class.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import wave
from pathlib import Path

LANGUAGES = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029")
SPEAKERS = ("m1", "m3", "m5", "m7", "f1", "f2", "f3", "f4", "f5")
WORDS_A_MINUTE = (120, 210)
PITCHES = (25, 75)  # of 0 to 99


def speak(text: str, target: Path, rng: random.Random) -> float:
    """Write one line in a voice of its own; how many seconds it lasts."""
    voice = f"{rng.choice(LANGUAGES)}+{rng.choice(SPEAKERS)}"
    speed, pitch = rng.randint(*WORDS_A_MINUTE), rng.randint(*PITCHES)
    file = target.with_name(f"{voice}_{target.name}")
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(file), "--stdin"]
    subprocess.run(command, input=text.encode(), check=True)
    with wave.open(str(file)) as sound:
        return sound.getnframes() / sound.getframerate()


def main() -> None:
    """Read lines in a random order until there is enough speech."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="a sentence a line")
    parser.add_argument("folder", type=Path, help="to write to; new or empty")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if shutil.which("espeak-ng") is None:
        sys.exit("espeak-ng is not installed; install it from the system's packages, for instance: apt-get install espeak-ng")
    if arguments.folder.exists() and any(arguments.folder.iterdir()):
        sys.exit(f"{arguments.folder} is not empty; name another folder")
    lines = [line.strip() for line in arguments.text.read_text(encoding="utf-8").splitlines() if line.strip()]
    rng, seconds = random.Random(arguments.seed), 0.0
    rng.shuffle(lines)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for number, line in enumerate(lines):
        if seconds >= 60 * arguments.minutes:
            break
        seconds += speak(line, arguments.folder / f"{number:05d}.wav", rng)
    print(f"{seconds / 60:.1f} minutes of speech in {arguments.folder}")


if __name__ == "__main__":
    main()
