"""Golden cases pass, whatever their folder is called; wrong figures and folders are told."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kimi_audio.errors import CheckpointError
from kimi_audio.verify import KINDS, verify_case

COPIES = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("kind", KINDS)
def test_golden_case_passes(request, kind):
    case = COPIES / kind
    if not case.is_dir():
        case = request.getfixturevalue("shared") / "golden" / kind
    checks = list(verify_case(case))
    assert [check for check in checks if not check.passed] == []
    expected = case / "expected.safetensors"
    names = {check.name for check in checks}
    assert len(names) == len(checks)
    assert not expected.exists() or load_file(expected).keys() <= names


def test_wrong_and_unknown_tensors_fail(shared, tmp_path):
    case = tmp_path / "some_other_name"
    shutil.copytree(shared / "golden" / "llm_decode", case)
    (case / "expected.safetensors").chmod(0o644)
    case.chmod(0o755)
    tensors = load_file(case / "expected.safetensors")
    tensors["text_logits"][0, 0, 0] += 2e-4
    tensors["audio_logits"] = tensors["audio_logits"][:, 1:].contiguous()
    save_file(tensors | {"surprise": torch.zeros(3)}, case / "expected.safetensors")
    failed = {check.name: check.error for check in verify_case(case) if not check.passed}
    assert failed.keys() == {"text_logits", "audio_logits", "surprise"}
    assert failed["text_logits"] == pytest.approx(2e-4, rel=0.1)
    assert failed["audio_logits"] == failed["surprise"] == float("inf")


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        list(verify_case(tmp_path / "absent"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a golden case of a known kind; known are prompt"):
        list(verify_case(tmp_path))
