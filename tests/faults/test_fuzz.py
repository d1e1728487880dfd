"""Broken images never bring the readers down. More: python tests/faults/fuzz_images.py FOLDER --cases 100000"""

import json
import subprocess
import sys
from pathlib import Path


def test_5000_mutants_give_an_image_or_a_refusal_in_bounded_memory(tmp_path):
    program = Path(__file__).with_name("fuzz_images.py")
    command = [sys.executable, str(program), str(tmp_path), "--cases", "5000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    counts = json.loads(done.stdout)
    assert counts["images"] + counts["refusals"] == 5000
    assert min(counts["images"], counts["refusals"]) > 500  # the mutants are neither all whole nor all hopeless
    assert counts["more_mib"] < 1024
