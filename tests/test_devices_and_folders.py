"""Devices and folders that are not there are named before any work is done."""

from __future__ import annotations

import argparse
import os

import pytest
import torch

from pyro_vae.scripts import count, exit_at_interrupt, positive
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder
from pyro_vae.system.interrupts import Interrupted


def test_device_by_default():
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "xpu:7", "gpu", "", "cpu:x", "meta"])
def test_device_that_does_not_exist(name):
    with pytest.raises(ValueError, match=f"device '{name}' does not exist here: ."):
        choose_device(name)


def test_folder_is_made(tmp_path):
    folder = writable_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert list(folder.iterdir()) == []
    assert writable_folder(str(folder)) == folder


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=f"cannot write to the folder '{path}'"):
            writable_folder(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"cannot write to the folder .*Permission denied"):
        writable_folder(tmp_path)


@pytest.mark.parametrize(
    ("raised", "message", "line"),
    [
        (KeyboardInterrupt(), None, "interrupted"),
        (Interrupted("stopped in epoch 3", None), None, "stopped in epoch 3"),
        (Interrupted("stopped in epoch 3", None), "go on", "go on"),
    ],
)
def test_a_script_that_is_interrupted_says_so_in_a_line(capsys, raised, message, line):
    def main():
        raise raised

    with pytest.raises(SystemExit) as ended:
        exit_at_interrupt(main, message)
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", f"{line}\n")


def test_numbers_on_a_command_line():
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--count", type=count(2))
    parser.add_argument("--rate", type=positive)
    args = parser.parse_args(["--count", "2", "--rate", "1e-3"])
    assert (args.count, args.rate) == (2, 1e-3)
    for text in ("1", "-3", "2.5", "two", "nan"):
        with pytest.raises(argparse.ArgumentError, match=f"--count: '{text}' is not an integer of at least 2"):
            parser.parse_args(["--count", text])
    for text in ("0", "nan", "inf", "much"):
        with pytest.raises(argparse.ArgumentError, match=f"--rate: '{text}' is not a positive number"):
            parser.parse_args(["--rate", text])
